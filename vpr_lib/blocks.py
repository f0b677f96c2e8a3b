"""Names of backbones, and of the blocks at which they can be cropped or frozen; without torch for the common ones."""

import re
from collections.abc import Sequence

from vpr_lib.options import check_choice

RESNET_STAGES = ("conv1", "layer1", "layer2", "layer3", "layer4")
RESNETS = {  # blocks in layer1 to layer4
    "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}  # fmt: skip
LITE0_STRIDES = (2, *(4,) * 2, *(8,) * 2, *(16,) * 6, *(32,) * 5)  # after each of its 16 blocks
DINOV2 = {  # blocks
    f"dinov2_vit{size}14{suffix}": number
    for size, number in {"s": 12, "b": 12, "l": 24, "g": 40}.items()
    for suffix in ("", "_reg")
}


def list_blocks(backbone: str) -> dict[str, int]:
    """The blocks of a backbone, in order: {name: pixels of the image for one of the block's output}.

    An unknown backbone is a ValueError that lists the valid ones.
    """
    if backbone in RESNETS:
        blocks = {"conv1": 4}
        for stage, number, stride in zip(RESNET_STAGES[1:], RESNETS[backbone], (4, 8, 16, 32), strict=True):
            blocks |= {f"{stage}.{i}": stride for i in range(number)}
        return blocks
    if backbone == "efficientnet_lite0":
        return {"stem": 2} | {f"block{i}": stride for i, stride in enumerate(LITE0_STRIDES, 1)}
    if backbone in DINOV2:
        return dict.fromkeys(["tokens", *(f"block{i + 1}" for i in range(DINOV2[backbone]))], 14)
    from vpr_lib.torchvision_networks import list_networks, measure_blocks  # imports torch

    check_choice("backbone", backbone, dict.fromkeys([*RESNETS, "efficientnet_lite0", *DINOV2, *list_networks()]))
    return measure_blocks(backbone)


def find_points(backbone: str, crop_after: str, freeze_until: str | None) -> tuple[int, int]:
    """Number of blocks of `list_blocks` that are kept, and of those that are frozen.

    Args:
        backbone: its name.
        crop_after: last block to keep: its name ("layer3.0", "block11"), that of a stage, for its last block
            ("layer3"), or "stride16" for the last block whose stride is at most 16.
        freeze_until: last block that is not trained, named in the same way, or "crop-1" for the block before the last
            one that is kept; None: all are trained.

    Raises:
        ValueError: there is no such backbone or block, or the frozen ones go beyond the crop; valid names are listed.
    """
    blocks = list_blocks(backbone)
    num_kept = _find_block(f"crop_after of {backbone}", crop_after, blocks) + 1
    if freeze_until is None:
        return num_kept, 0
    kept = dict([*blocks.items()][:num_kept])
    if freeze_until == "crop-1" and num_kept > 1:
        return num_kept, num_kept - 1
    what = f"freeze_until of {backbone}, cropped after {crop_after},"
    return num_kept, _find_block(what, freeze_until, kept, ["crop-1"]) + 1


def _find_block(what: str, point: str, blocks: dict[str, int], others: Sequence[str] = ()) -> int:
    """Position of a block; `what` and the names of `others` are for the error."""
    names = [*blocks]
    if match := re.fullmatch(r"stride([0-9]+)", point):
        matches = [i for i, stride in enumerate(blocks.values()) if stride <= int(match[1])]
    else:
        matches = [i for i, name in enumerate(names) if name == point or name.startswith(f"{point}.")]
    if not matches:
        stages = [name.rpartition(".")[0] for name in names if "." in name]
        strides = [f"stride{stride}" for stride in blocks.values()]
        check_choice(what, point, dict.fromkeys([*names, *stages, *strides, *others]))
    return matches[-1]
