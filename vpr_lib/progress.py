"""How far a training is: counts of the current epoch, the history of finished ones, and how both are shown."""

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm.auto import tqdm

from vpr_lib.atomic_files import write_atomically
from vpr_lib.loading import Batch, BatchLoader
from vpr_lib.optimization import Scores, get_first_score


@dataclass
class Progress:
    """How far a run is."""

    epoch: int = 0  # the current epoch, from 0
    batch: int = 0  # finished batches of it
    step: int = 0  # optimizer steps of the whole run
    loss_sum: float = 0.0  # over the epoch's finished batches, as the next three
    trivial_sum: float = 0.0
    num_photos: int = 0
    seconds: float = 0.0
    best_score: float = -math.inf
    best_epoch: int = -1
    history: list[dict[str, float]] = field(default_factory=list)  # a row for each finished epoch

    def add_batch(self, loss: float, trivial: float, num_photos: int, seconds: float) -> None:
        """Count one finished batch."""
        self.batch += 1
        self.step += 1
        self.loss_sum += loss
        self.trivial_sum += trivial
        self.num_photos += num_photos
        self.seconds += seconds

    def finish_epoch(self, lr: float, scores: Scores) -> bool:
        """Add the epoch's row to the history and go to the next epoch; returns whether it is the best so far."""
        row = {
            "epoch": self.epoch + 1,
            "loss": self.loss_sum / self.batch,
            "trivial_anchors": self.trivial_sum / self.batch,
            "lr": lr,
            "photos_per_s": self.num_photos / max(self.seconds, 1e-9),
        }
        for split, recalls in scores.items():
            row |= {f"{split} R@{k}": recall for k, recall in recalls.items()}
        self.history.append(row)
        is_best = bool(scores) and get_first_score(scores) > self.best_score
        if is_best:
            self.best_score = get_first_score(scores)
            self.best_epoch = self.epoch
        self.epoch += 1
        self.batch = self.num_photos = 0
        self.loss_sum = self.trivial_sum = self.seconds = 0.0
        return is_best

    def show_epoch(self, loader: BatchLoader, epochs: int, num_photos: int, enabled: bool) -> Iterator[Batch]:
        """The current epoch's batches under a progress bar in photos."""
        title = f"epoch {self.epoch + 1}/{epochs}"
        bar = tqdm(
            total=num_photos, initial=self.num_photos, desc=title, unit="photo", disable=not enabled, leave=False
        )
        with bar:
            for batch in loader:
                yield batch
                bar.set_postfix(loss=f"{self.loss_sum / max(1, self.batch):.3f}", refresh=False)
                bar.update(self.num_photos - bar.n)  # of all processes

    def write_history(self, path: Path) -> None:
        """Write the history as CSV, and print its last row."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.history[0]))
        writer.writeheader()
        writer.writerows(self.history)
        write_atomically(path, text.getvalue().encode())
        row = self.history[-1]
        recalls = "".join(f", {name} {value:.1f}" for name, value in row.items() if name.endswith("R@1"))
        print(
            f"epoch {row['epoch']}: loss {row['loss']:.3f}, {row['trivial_anchors']:.0%} of the anchors trivial, "
            f"{row['photos_per_s']:.0f} photos/s{recalls}",
            flush=True,
        )
