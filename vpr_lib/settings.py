"""What a run computes: every setting with its default, and the presets. `machine.Machine` holds how."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vpr_lib.blocks import find_points
from vpr_lib.options import CheckedNames, check_choice, check_fields

CHOICES: dict[str, tuple[str | None, ...]] = {
    "optimizer": ("Adam", "AdamW", "SGD"),
    "scheduler": ("MultiStepLR", "CosineAnnealingLR", "ReduceLROnPlateau", None),
    "precision": ("auto", "float32", "bfloat16", "float16"),
    "keep": ("best", "last"),
}
# What each number, or each one of several, must lie in.
INTERVALS = {
    "image_size": "[1, 4096]", "num_places": "[2, 1e5]", "images_per_place": "[2, 1e4]",  # a metric loss needs pairs
    "crop_min": "(0, 1]", "randaugment_ops": "[0, 100]", "randaugment_magnitude": "[0, 30]",
    "lr": "(0, inf)", "weight_decay": "[0, inf)", "milestones": "[1, inf)", "gamma": "(0, 1]", "patience": "[0, inf)",
    "warmup_steps": "[0, inf)", "epochs": "[1, 1e6]", "seed": "[0, 4294967295]",  # 32 bits, as NumPy takes
    "ks": "[1, 1e6]", "radius_m": "(0, inf)",
}  # fmt: skip
OWN = "own:"  # begins the name of a backbone that `get_run` was given: the name of its class follows


@dataclass(frozen=True)
class Settings(CheckedNames):
    """What is computed. The defaults reproduce the published comparison (ResNet-18, 320 px, 10 epochs).

    Raises:
        ValueError: there is no such field, or a value has another type than its field, or is not valid. Names of
            loss, miner and aggregator and their options are checked where those are made.
    """

    # Model
    backbone: str = "resnet18"  # or efficientnet_lite0, ...: see backbones.Backbone, as for the next three
    weights: str | None = "imagenet"  # "imagenet", "city" (rendered streets), None (random) or a path to a checkpoint
    crop_after: str = "stride16"  # ResNet's layer3: 320 px give a 20 x 20 map, fine enough to keep the layout
    freeze_until: str | None = "stride8"  # ResNet's conv1..layer2 keep their pretrained edges and textures
    standardize: bool = False  # each photo's channels to mean 0, standard deviation 1; for "city" and random weights
    aggregator: str = "MixVPR"  # a name in aggregators.AGGREGATORS
    aggregator_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # {aggregator: {argument: value}}

    # Photos and batches
    image_size: int = 320  # pixels, height and width; photos are squeezed to a square, as published
    num_places: int = 32  # P places a batch: more places, more hard negatives to mine
    images_per_place: int = 4  # K distinct photos of each, so every photo has K - 1 positives
    crop_min: float = 1.0  # smallest side of a random crop, as a share; 1 crops nothing, as published
    randaugment_ops: int = 3  # operations a photo; 0 turns augmentation off
    randaugment_magnitude: int = 9  # of 30, torchvision's default

    # Loss
    loss: str = "MultiSimilarityLoss"  # exact class name in pytorch_metric_learning.losses
    loss_options: Mapping[str, Any] = field(default_factory=dict)  # over optimization.DEFAULT_OPTIONS
    miner: str | None = "MultiSimilarityMiner"  # exact class name in pytorch_metric_learning.miners, None for all pairs
    miner_options: Mapping[str, Any] = field(default_factory=dict)

    # Optimization
    optimizer: str = "AdamW"  # Adam, AdamW or SGD (momentum 0.9)
    lr: float = 1e-3
    weight_decay: float = 3e-4  # decoupled for AdamW, an L2 term in the gradient for Adam and SGD
    scheduler: str | None = "MultiStepLR"  # MultiStepLR, CosineAnnealingLR, ReduceLROnPlateau or None
    milestones: tuple[int, ...] = (5, 10, 15, 25)  # epochs after which MultiStepLR lowers the rate
    gamma: float = 0.3  # factor of MultiStepLR and ReduceLROnPlateau
    patience: int = 2  # epochs without a better validation recall before ReduceLROnPlateau acts
    warmup_steps: int = 600  # optimizer steps of linear warm-up; multiplies whatever the scheduler says
    epochs: int = 10
    precision: str = "auto"  # auto, float32, bfloat16 or float16 (the last with a gradient scaler)
    seed: int = 0  # initial weights, batches and augmentation

    # Evaluation
    val_splits: tuple[str, ...] | None = None  # measured each epoch; None: those whose name is or ends in "val"
    keep: str = "best"  # weights to keep: "best" R@1 on the first validation split, or "last"
    ks: tuple[int, ...] = (1, 5, 10, 15, 20, 25)
    radius_m: float = 25.0  # a database photo this near the query counts as right

    def __post_init__(self) -> None:
        check_fields(self, INTERVALS)
        for name, valid in CHOICES.items():
            check_choice(name, getattr(self, name), valid)
        if not self.backbone.startswith(OWN):
            find_points(self.backbone, self.crop_after, self.freeze_until)
        if not self.ks or len({*self.ks}) < len(self.ks):
            raise ValueError(f"ks is {self.ks}; expected different ranks, for example (1, 5, 10)")
        if [*self.milestones] != sorted({*self.milestones}):
            raise ValueError(f"milestones is {self.milestones}; expected rising epochs, for example (5, 10)")
        if self.scheduler == "ReduceLROnPlateau" and self.gamma == 1:
            raise ValueError("gamma is 1.0, with which ReduceLROnPlateau changes nothing; it must be below 1")
        if self.weights == "city" and not self.standardize:
            raise ValueError("weights 'city' were trained on standardized photos: they need standardize=true")

    def to_json(self) -> str:
        """JSON text that is the same for equal settings."""
        return json.dumps(asdict(self), sort_keys=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, as written into a run folder."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """The inverse of `to_dict`; a key that is no setting of this version is a ValueError that names it."""
        return cls(**values)


# Small photos and few optimizer steps, in which MixVPR learns too little from its published start.
_SMALL = Settings(standardize=True, aggregator_options={"MixVPR": {"row_init": "regions"}}, image_size=96, keep="last")

PRESETS: dict[str, Settings] = {
    # The published run on the real sets; needs a GPU.
    "xs": Settings(),
    # A few hundred to a few thousand of one's own photos, in a minute on a CPU: the aggregator and the last block are
    # trained, of a trunk whose ImageNet weights are installed with the kit. Optimizer steps are few, so batches are
    # small, there is no warm-up, and the rate ends at zero.
    "photos": replace(
        _SMALL, backbone="efficientnet_lite0", freeze_until="crop-1", standardize=False, image_size=224, num_places=16,
        randaugment_ops=0, scheduler="CosineAnnealingLR", warmup_steps=0, epochs=5,
    ),
    # The rendered city: eleven runs and their figures in minutes on a CPU, from weights trained on rendered streets.
    # Training layer3.0 as well gains nothing on sf_val (mean of three seeds); frozen, all runs share its features.
    "mini": replace(
        _SMALL, weights="city", freeze_until="layer3.0", num_places=8, randaugment_ops=0, weight_decay=0.01,
        milestones=(2, 3), patience=1, warmup_steps=20, epochs=4,
    ),
    # For tests only: takes seconds, its numbers mean nothing.
    "smoke": Settings(
        weights=None, freeze_until=None, image_size=64, num_places=4, images_per_place=2, epochs=2, warmup_steps=2,
        randaugment_ops=1, ks=(1, 5, 10),
    ),
}  # fmt: skip


def get_preset(name: str) -> Settings:
    """One of `PRESETS`; an unknown name is a ValueError that lists them."""
    return PRESETS[check_choice("preset", name, PRESETS)]
