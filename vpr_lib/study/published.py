"""The published numbers of the study the kit reproduces: recalls in percent, losses without unit.

The tables (Fig. 1, Fig. 2) are printed in the publication with two decimals; the curves (Fig. 3, Fig. 4) were read off
its plots. All are on the real sets (gsv_xs, sf_xs, tokyo_xs), ResNet-18 with ImageNet weights, 320 px, 10 epochs.
"""

from collections.abc import Mapping

from vpr_lib.evaluation import Comparison
from vpr_lib.figures.tables import Rows, join_recalls

PUBLISHED_KS = (1, 10, 25)  # ranks in the published tables
PUBLISHED_SPLITS = ("sf_val", "sf_test", "tokyo_test")

# Fig. 1: aggregator -> split -> {k: recall}.
RECALLS: dict[str, dict[str, dict[int, float]]] = {
    "AVG": {
        "sf_val": {1: 47.22, 10: 68.75, 25: 76.33},
        "sf_test": {1: 12.80, 10: 31.80, 25: 39.70},
        "tokyo_test": {1: 22.54, 10: 46.35, 25: 52.70},
    },
    "GeM": {
        "sf_val": {1: 55.77, 10: 77.43, 25: 84.46},
        "sf_test": {1: 20.70, 10: 41.10, 25: 49.80},
        "tokyo_test": {1: 35.56, 10: 62.86, 25: 72.70},
    },
    "ConvAP": {
        "sf_val": {1: 71.71, 10: 83.39, 25: 87.25},
        "sf_test": {1: 41.20, 10: 61.50, 25: 67.30},
        "tokyo_test": {1: 55.87, 10: 79.68, 25: 84.44},
    },
    "MixVPR": {
        "sf_val": {1: 78.83, 10: 89.77, 25: 93.06},
        "sf_test": {1: 53.10, 10: 70.50, 25: 75.70},
        "tokyo_test": {1: 70.16, 10: 84.13, 25: 91.11},
    },
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
    """The layout of the published Fig. 1: R@1 / 10 / 25 for each split, the published numbers beside ours.

    Args:
        comparisons: {split: {aggregator: comparison}}, see `compare_evaluations`; each split has the same aggregators.
            A split without published numbers has no published column.
    """
    names = next(iter(comparisons.values()))
    rows = [["R@1 / 10 / 25 in percent"], *([name] for name in names)]
    for split, by_name in comparisons.items():
        is_published = split in PUBLISHED_SPLITS
        rows[0] += [split, f"{split}, published"] if is_published else [split]
        for row, (name, comparison) in zip(rows[1:], by_name.items(), strict=True):
            row.append(join_recalls(comparison.recall, PUBLISHED_KS))
            if is_published:
                row.append(join_recalls(RECALLS.get(name, {}).get(split, {}), PUBLISHED_KS))
    return rows
