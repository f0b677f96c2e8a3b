"""Places -> batches of P places x K distinct photos, a function of (seed, epoch) alone."""

from collections.abc import Iterator

import numpy as np

from vpr_lib.loading import BatchRequest


class PlaceSampler:
    """Yields batches of `num_places` places with `images_per_place` distinct photos each.

    Every epoch visits each place once, in a new random order over all cities together, with photos drawn
    without replacement. The last batch may be smaller; it is dropped if it has a single place, which has no negatives.

    Args:
        places: (N,) str, the place of each photo; "" is no place. Equal strings are one place.
        num_places: P, over all ranks together.
        images_per_place: K; a place with fewer photos is left out.
        seed: with the epoch it determines every batch.
        rank, world_size: process `rank` of `world_size` gets its part of the places of each batch, in their order. All
            parts together are the batch of one process; of the last batch, the last parts may be smaller or empty.
        pad: repeat photos so that all parts of a batch have the same size; see `BatchRequest` for telling them apart.

    Attributes:
        labels: (N,) int64, the same number for photos of one place.
        summary: what is trained on and what is left out, in a line.

    Raises:
        ValueError: fewer than two places have K photos, or P is no multiple of the ranks.
    """

    def __init__(
        self,
        places: np.ndarray,
        num_places: int,
        images_per_place: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pad: bool = False,
    ) -> None:
        if num_places % world_size:
            raise ValueError(f"num_places = {num_places} must be a multiple of the {world_size} ranks")
        self.num_places, self.images_per_place = num_places, images_per_place
        self.seed, self.rank, self.world_size, self.pad = seed, rank, world_size, pad
        names, self.labels = np.unique(np.asarray(places, dtype=object).astype(str), return_inverse=True)
        rows = np.argsort(self.labels, kind="stable")
        photos = np.split(rows, np.cumsum(np.bincount(self.labels))[:-1])
        known = [rows for name, rows in zip(names, photos, strict=True) if name]
        self.photos = [rows for rows in known if len(rows) >= images_per_place]
        if len(self.photos) < 2:
            raise ValueError(
                f"{len(self.photos)} places have {images_per_place} photos or more, of {len(known)} places in "
                f"{len(places)} photos; training needs two. The place is the name's note, <place>_<City>"
            )
        self.summary = f"{sum(map(len, self.photos))} photos of {len(self.photos)} places"
        if num_left_out := len(known) - len(self.photos):
            self.summary += f"; left out: {num_left_out} places with fewer than {images_per_place} photos"
        if num_without_place := len(places) - sum(map(len, known)):
            self.summary += f"; left out: {num_without_place} photos whose name holds no place"
        self.set_epoch(0)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch to iterate, from `first_batch` on (to resume within an epoch)."""
        self.epoch, self.first_batch = epoch, first_batch

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        full, rest = divmod(len(self.photos), self.num_places)
        return full + (rest >= 2)

    @property
    def photos_per_epoch(self) -> int:
        """Photos in all batches of an epoch, over all ranks together."""
        return min(len(self) * self.num_places, len(self.photos)) * self.images_per_place

    def __iter__(self) -> Iterator[BatchRequest]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.photos))
        for number in range(self.first_batch, len(self)):
            chosen = order[number * self.num_places :][: self.num_places]
            seed = (self.seed, self.epoch, number, 0)
            rng = np.random.default_rng(seed)
            photos = [rng.choice(self.photos[i], self.images_per_place, replace=False) for i in chosen]
            rows = np.concatenate(photos)  # of all processes: (P * K,)
            size = -(-len(chosen) // self.world_size) * self.images_per_place
            first = self.rank * size
            part = np.resize(rows, self.world_size * size) if self.pad else rows
            yield BatchRequest(part[first : first + size], seed, (first, len(rows)))
