"""CentroidTripletLoss: the triplet loss with a place's mean descriptor in place of single photos.

pytorch-metric-learning had a loss of this name in versions 1.1 to 1.7 and has none since 2.0.
"""

from typing import Any

import torch
from pytorch_metric_learning.losses import BaseMetricLossFunction
from pytorch_metric_learning.reducers import AvgNonZeroReducer
from pytorch_metric_learning.utils.common_functions import indices_tuple_not_supported, ref_not_supported


class CentroidTripletLoss(BaseMetricLossFunction):
    """Each photo must be nearer to its place's other photos' mean than to the mean of any other place.

    The loss of anchor x and another place N is max(0, d(x, c_P) - d(x, c_N) + margin), where c_P is the mean of the
    other photos of x's place and c_N that of all photos of N; averaged over all anchors and places where it isn't 0.
    The distance is that of unit-norm vectors, so the means are normalized.

    Args:
        margin: how much nearer, as a Euclidean distance.
        **kwargs: `distance` and `reducer`, as for other losses of pytorch-metric-learning.

    Raises:
        ValueError, in the forward pass: a place has a single photo in the batch, or pairs of a miner are given.

    Source: Wieczorek et al., On the Unreasonable Effectiveness of Centroids in Image Retrieval (ICONIP 2021), eq. 2.
    """

    def __init__(self, margin: float = 0.05, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.margin = margin

    def compute_loss(
        self, embeddings: torch.Tensor, labels: torch.Tensor, indices_tuple: Any, ref_emb: Any, ref_labels: Any
    ) -> dict[str, dict[str, Any]]:
        """The loss of each anchor and other place, in the form that the library's reducers take.

        Args:
            embeddings: descriptors (B, D).
            labels: places (B,) int64.
            indices_tuple, ref_emb, ref_labels: not supported.
        """
        indices_tuple_not_supported(indices_tuple)
        ref_not_supported(embeddings, labels, ref_emb, ref_labels)
        places, own, counts = labels.unique(return_inverse=True, return_counts=True)
        if counts.min() < 2:
            raise ValueError(f"place {places[counts.argmin()]} has one photo in the batch; it needs 2 or more")
        belongs = torch.nn.functional.one_hot(own)  # (B, P)
        sums = belongs.T.to(embeddings) @ embeddings  # (P, D)
        others = (sums[own] - embeddings) / (counts[own] - 1).unsqueeze(1)  # (B, D), without the anchor itself
        to_own = self.distance(embeddings, others).diagonal().unsqueeze(1)  # (B, 1)
        to_places = self.distance(embeddings, sums / counts.unsqueeze(1))  # (B, P)
        losses = torch.relu(self.distance.margin(to_own, to_places) + self.margin)
        pairs = torch.where(belongs == 0)  # anchors and other places
        return {"loss": {"losses": losses[pairs], "indices": pairs, "reduction_type": "neg_pair"}}

    def get_default_reducer(self) -> AvgNonZeroReducer:
        """The mean of the losses above 0."""
        return AvgNonZeroReducer()
