"""The published numbers of the study the kit reproduces: recalls in percent, losses without unit.

The tables (Fig. 1, Fig. 2) are printed in the publication with two decimals; the curves (Fig. 3, Fig. 4) were read off
its plots. All are on the real sets (gsv_xs, sf_xs, tokyo_xs), ResNet-18 with ImageNet weights, 320 px, 10 epochs.

Source: `CITATION`; the authors' code is at `CODE`.
"""

from collections.abc import Mapping

from vpr_lib.evaluation import Comparison
from vpr_lib.figures.tables import Rows, join_recalls

CITATION = (
    "M. Bracco, F. Geusa, C. D'Alleva, \"Optimizing Neural Networks for Urban Visual Geo-Localization: A Comparative "
    'Approach", Politecnico di Torino'
)
CODE = "https://github.com/fracrumatte/geoloc-fcm-gsv-cities"
PUBLISHED_KS = (1, 10, 25)  # ranks in the published tables
PUBLISHED_SPLITS = ("sf_val", "sf_test", "tokyo_test")

# Fig. 1: aggregator -> recalls at `PUBLISHED_KS` on each of `PUBLISHED_SPLITS`.
_FIG_1 = {
    "AVG": ((47.22, 68.75, 76.33), (12.80, 31.80, 39.70), (22.54, 46.35, 52.70)),
    "GeM": ((55.77, 77.43, 84.46), (20.70, 41.10, 49.80), (35.56, 62.86, 72.70)),
    "ConvAP": ((71.71, 83.39, 87.25), (41.20, 61.50, 67.30), (55.87, 79.68, 84.44)),
    "MixVPR": ((78.83, 89.77, 93.06), (53.10, 70.50, 75.70), (70.16, 84.13, 91.11)),
}

# The same as aggregator -> split -> {k: recall}.
RECALLS: dict[str, dict[str, dict[int, float]]] = {
    name: {split: dict(zip(PUBLISHED_KS, by_k, strict=True)) for split, by_k in zip(PUBLISHED_SPLITS, row, strict=True)}
    for name, row in _FIG_1.items()
}

# Fig. 2: (learning rate, weight decay) -> {k: recall on sf_val}, ConvAP with AdamW.
GRID: dict[tuple[float, float], dict[int, float]] = {
    (0.01, 0.01): {1: 71.65, 10: 82.83, 25: 86.98},
    (0.001, 0.01): {1: 71.71, 10: 83.39, 25: 87.25},
    (0.01, 0.001): {1: 70.99, 10: 82.75, 25: 86.84},
    (0.001, 0.001): {1: 71.37, 10: 82.51, 25: 86.54},
}

# Fig. 3: optimizer -> {k: recall on sf_val}, MixVPR; read off the plot, +-0.2 points.
OPTIMIZERS: dict[str, dict[int, float]] = {
    "AdamW": {1: 78.8, 5: 87.0, 10: 89.8, 15: 91.3, 20: 92.4, 25: 93.1},
    "Adam": {1: 78.2, 5: 86.0, 10: 88.7, 15: 89.9, 20: 91.0, 25: 91.7},
    "SGD": {1: 76.0, 5: 84.3, 10: 87.2, 15: 88.8, 20: 89.9, 25: 90.8},
}

# Fig. 4: aggregator -> training loss of each of the 10 epochs (AdamW, lr 1e-3, weight decay 3e-4); read off the plot.
LOSSES: dict[str, tuple[float, ...]] = {
    "MixVPR": (0.69, 0.575, 0.577, 0.52, 0.523, 0.405, 0.415, 0.407, 0.39, 0.37),
    "ConvAP": (0.84, 0.753, 0.758, 0.715, 0.675, 0.64, 0.63, 0.628, 0.585, 0.577),
}


def published_rows(comparisons: Mapping[str, Mapping[str, Comparison]]) -> Rows:
    """The table of Fig. 1 from {split: {aggregator: comparison}}, with the published numbers of a split beside ours."""
    rows = [["R@1 / 10 / 25 in percent"], *([name] for name in next(iter(comparisons.values())))]
    for split, by_name in comparisons.items():
        is_published = split in PUBLISHED_SPLITS
        rows[0] += [split, f"{split}, published"] if is_published else [split]
        for row, (name, comparison) in zip(rows[1:], by_name.items(), strict=True):
            row.append(join_recalls(comparison.recall, PUBLISHED_KS))
            if is_published:
                row.append(join_recalls(RECALLS.get(name, {}).get(split, {}), PUBLISHED_KS))
    return rows
