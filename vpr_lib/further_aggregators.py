"""Aggregators beyond the study's four; `aggregators.AGGREGATORS` holds all."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vpr_lib.pooling import generalized_mean, unit


class CosPlace(nn.Module):
    """Generalized mean of L2-normalized local features, then a linear layer. D = out_dim.

    Args:
        in_channels: channels of the feature map.
        out_dim: length of the descriptor; 512 is the default of the published code.

    Source: Berton et al., Rethinking Visual Geo-localization for Large-Scale Applications (CVPR 2022); the network's
    layers, not the loss and the classes of the paper. Its exponent starts at 3 and is trained.
    """

    def __init__(self, in_channels: int, out_dim: int = 512) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), 3.0))
        self.linear = nn.Linear(in_channels, out_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) -> (B, out_dim)."""
        with torch.autocast(x.device.type, enabled=False):
            x = generalized_mean(F.normalize(x.float(), dim=1), self.p.float(), eps=1e-6)  # (B, in_channels)
        return unit(self.linear(x.to(self.linear.weight.dtype)))


class NetVLAD(nn.Module):
    """Sums the differences of local features from their clusters' centers. D = in_channels * clusters_num.

    Args:
        in_channels: channels of the feature map.
        clusters_num: clusters, at least 2. Published with 64; 16 keep the descriptor at 4,096 numbers for 256 channels.

    A training calls `initialize` before it starts, as the published one did.

    Source: Arandjelovic et al., NetVLAD: CNN Architecture for Weakly Supervised Place Recognition (CVPR 2016),
    eq. 1 to 4; as in the published code, the assignment of eq. 3 has no bias.
    """

    def __init__(self, in_channels: int, clusters_num: int = 16) -> None:
        super().__init__()
        if clusters_num < 2:
            raise ValueError(f"clusters_num is {clusters_num}; expected 2 or more")
        self.conv = nn.Conv2d(in_channels, clusters_num, kernel_size=1, bias=False)
        self.centroids = nn.Parameter(F.normalize(torch.rand(clusters_num, in_channels), dim=1))

    @torch.no_grad()
    def initialize(self, local_features: np.ndarray) -> None:
        """Set the centroids to those of k-means, and the assignment to their directions times a factor.

        With this factor, the largest assignment of a local feature is 100 times the second largest, at the mean of
        the differences between the two logarithms.

        Args:
            local_features: float32 (N, in_channels), columns of feature maps of training photos; N >= clusters_num.

        Source: the published code; its rule for the factor replaces a fixed one.
        """
        import faiss  # here, because not every GPU environment has it

        clusters_num, in_channels = self.centroids.shape
        if len(local_features) < clusters_num:
            raise ValueError(f"{len(local_features)} local features are too few for {clusters_num} clusters")
        features = F.normalize(torch.from_numpy(local_features), dim=1)  # (N, C)
        kmeans = faiss.Kmeans(in_channels, clusters_num, niter=100, seed=0, min_points_per_centroid=1)
        kmeans.train(features.numpy())
        centroids = torch.from_numpy(kmeans.centroids)  # (clusters_num, C)
        directions = F.normalize(centroids, dim=1)
        first, second = (features @ directions.T).topk(2, dim=1).values.T
        factor = math.log(100) / max(float((first - second).mean()), 1e-6)  # finite if all features are equal
        self.centroids.copy_(centroids)
        self.conv.weight.copy_(factor * directions[:, :, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) -> (B, clusters_num * in_channels)."""
        # float32: logarithms of assignments are large, and residuals are small differences.
        with torch.autocast(x.device.type, enabled=False):
            x = F.normalize(x.float(), dim=1)
            assigned = F.conv2d(x, self.conv.weight.float()).flatten(2).softmax(1)  # (B, clusters_num, H * W)
            # sum over positions of assigned * (x - centroid)
            residuals = assigned @ x.flatten(2).transpose(1, 2)  # (B, clusters_num, C)
            residuals = residuals - assigned.sum(2, keepdim=True) * self.centroids.float()
            return unit(F.normalize(residuals, dim=2))  # each cluster counts alike


class SALAD(nn.Module):
    """NetVLAD with assignments by optimal transport, and a cluster ("dustbin") for what should not count.

    D = token_dim + num_clusters * cluster_dim. There are no centers to subtract, so nothing is to be initialized.

    Args:
        in_channels: channels of the feature map.
        num_clusters: clusters besides the dustbin; 64 as published.
        cluster_dim: channels of the reduced local features; 128 as published.
        token_dim: length of the reduced global token; 256 as published. The paper takes a transformer's class token;
            a convolutional network has none, so here it is computed from the mean of the feature map.
        hidden_dim: width of the three perceptrons. Published 512 for 768 channels; the maps here have fewer.
        num_iterations: of Sinkhorn's algorithm; 3 as published.

    Source: Izquierdo and Civera, Optimal Transport Aggregation for Visual Place Recognition (CVPR 2024), section 3,
    written from the paper; without its dropout.
    """

    def __init__(
        self,
        in_channels: int,
        num_clusters: int = 64,
        cluster_dim: int = 128,
        token_dim: int = 256,
        hidden_dim: int = 256,
        num_iterations: int = 3,
    ) -> None:
        super().__init__()
        self.num_iterations = num_iterations
        self.score, self.reduction, self.token = (
            nn.Sequential(nn.Linear(in_channels, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, size))
            for size in (num_clusters, cluster_dim, token_dim)
        )
        self.dustbin = nn.Parameter(torch.ones(1))  # a score, the same for all positions

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) -> (B, token_dim + num_clusters * cluster_dim)."""
        features = x.flatten(2).transpose(1, 2)  # (B, H * W, in_channels)
        scores, reduced = self.score(features), self.reduction(features)
        token = self.token(x.float().mean((2, 3)).to(x.dtype))  # (B, token_dim)
        # float32: the exponential of a score may overflow float16.
        with torch.autocast(x.device.type, enabled=False):
            assigned = self.assign(scores.float().transpose(1, 2))[:, :-1]  # (B, num_clusters, H * W)
            clusters = F.normalize(assigned @ reduced.float(), dim=2)  # (B, num_clusters, cluster_dim)
            return unit(torch.cat([F.normalize(token.float(), dim=1), clusters.flatten(1)], dim=1))

    def assign(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, num_clusters, H * W) float32 -> assignments (B, num_clusters + 1, H * W), the dustbin's last."""
        num_clusters, positions = scores.shape[1:]
        dustbin = self.dustbin.float().expand(len(scores), 1, positions)
        # Each position gives a mass of 1, each cluster takes 1, the dustbin the rest. On a map with fewer positions
        # than clusters, which the paper doesn't have, all take the same.
        mass = min(1.0, positions / (num_clusters + 1))
        masses = scores.new_tensor([mass] * num_clusters + [positions - mass * num_clusters])
        return transport(torch.cat([scores, dustbin], dim=1), masses, self.num_iterations)


def transport(scores: torch.Tensor, masses: torch.Tensor, num_iterations: int) -> torch.Tensor:
    """Assignments that prefer high scores, where each position gives a mass of 1 and each cluster takes its own.

    Args:
        scores: (B, K, positions) float32.
        masses: (K,) float32, above 0; their sum is the number of positions.
        num_iterations: how often the exponentials of the scores are scaled to the positions' masses, then to the
            clusters'. Only the latter are exact; the former come closer with every iteration.

    Returns:
        (B, K, positions) float32.

    Source: Cuturi, Sinkhorn Distances: Lightspeed Computation of Optimal Transport (NeurIPS 2013), algorithm 1, on
    logarithms.
    """
    for _ in range(num_iterations):
        scores = scores.log_softmax(1)
        scores = scores.log_softmax(2) + masses.log()[:, None]
    return scores.exp()


class BoQBlock(nn.Module):
    """One bag of queries: encodes the local features, and lets each trained query attend to them."""

    def __init__(self, channels: int, num_queries: int) -> None:
        super().__init__()
        num_heads = max(1, channels // 64)  # as published
        self.encoder = nn.TransformerEncoderLayer(channels, num_heads, 4 * channels, dropout=0.0, batch_first=True)
        self.queries = nn.Parameter(torch.randn(1, num_queries, channels))
        self.self_attn = nn.MultiheadAttention(channels, num_heads, batch_first=True)
        self.norm_q = nn.LayerNorm(channels)
        self.cross_attn = nn.MultiheadAttention(channels, num_heads, batch_first=True)
        self.norm_out = nn.LayerNorm(channels)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, H * W, channels) -> the same, encoded, and the queries' answers (B, num_queries, channels)."""
        x = self.encoder(x)
        queries = self.queries + self.self_attn(self.queries, self.queries, self.queries, need_weights=False)[0]
        queries = self.norm_q(queries).expand(len(x), -1, -1)
        return x, self.norm_out(self.cross_attn(queries, x, x, need_weights=False)[0])


class BoQ(nn.Module):
    """Trained queries attend to the local features, a bag of them in each layer. D = proj_channels * row_dim.

    Args:
        in_channels: channels of the feature map.
        proj_channels: channels of local features and queries: a multiple of 64, or any number below 128. 256 are as
            many as ConvAP and MixVPR have here; published 512 for ResNet-50.
        num_queries: queries of each layer; published 64 for ResNet-50, whose maps have more channels.
        num_layers: encoder layers; 2 as published.
        row_dim: combinations of all queries that are kept. 4 give 1,024 numbers, as many as ConvAP and MixVPR; the
            published 32 give 8,192.

    Source: Ali-bey et al., BoQ: A Place is Worth a Bag of Learnable Queries (CVPR 2024), section 3; the parameters
    are named as in the published code.
    """

    def __init__(
        self,
        in_channels: int,
        proj_channels: int = 256,
        num_queries: int = 32,
        num_layers: int = 2,
        row_dim: int = 4,
    ) -> None:
        super().__init__()
        if proj_channels % max(1, proj_channels // 64):
            raise ValueError(f"proj_channels is {proj_channels}; expected a multiple of 64, or a number below 128")
        self.proj_c = nn.Conv2d(in_channels, proj_channels, kernel_size=3, padding=1)
        self.norm_input = nn.LayerNorm(proj_channels)
        self.boqs = nn.ModuleList(BoQBlock(proj_channels, num_queries) for _ in range(num_layers))
        self.fc = nn.Linear(num_layers * num_queries, row_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) -> (B, proj_channels * row_dim)."""
        x = self.norm_input(self.proj_c(x).flatten(2).transpose(1, 2))  # (B, H * W, proj_channels)
        answers = []
        for block in self.boqs:
            x, answer = block(x)
            answers.append(answer)
        answers = torch.cat(answers, dim=1)  # (B, num_layers * num_queries, proj_channels)
        return unit(self.fc(answers.transpose(1, 2)))  # (B, proj_channels, row_dim) -> (B, D)
