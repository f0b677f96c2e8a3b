"""Loss, miner, optimizer and learning-rate schedule, made from the settings by exact name.

An unknown name or option is a ValueError that lists the valid ones.
"""

import contextlib
import copy
import inspect
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from pytorch_metric_learning import losses, miners
from torch import nn
from torch.optim import lr_scheduler

from vpr_lib.centroid_loss import CentroidTripletLoss
from vpr_lib.options import check_choice
from vpr_lib.settings import Settings

# Options by class name; `loss_options` and `miner_options` go over them. "sf_val" marks those chosen on that split of
# the rendered city, see docs/results.md. The default miner suits all of these losses but the last.
DEFAULT_OPTIONS: dict[str, dict[str, Any]] = {
    "MultiSimilarityMiner": {"epsilon": 0.1},  # the published study
    "MultiSimilarityLoss": {"alpha": 1.0, "beta": 50.0, "base": 0.0},  # the published study
    # Temperatures and m are of cosine similarities.
    "SupConLoss": {"temperature": 0.1},  # Khosla et al. (NeurIPS 2020); 0.07, also common, is level on sf_val
    "NTXentLoss": {"temperature": 0.07},  # Wu et al. (CVPR 2018), MoCo; without a miner, SimCLR's 0.5 fails on sf_val
    "CircleLoss": {"m": 0.4, "gamma": 80.0},  # Sun et al. (CVPR 2020), for image retrieval
    # Margins are of Euclidean distances between unit-norm descriptors, 0 to 2.
    "ContrastiveLoss": {"pos_margin": 0.0, "neg_margin": 1.0},  # the library's; 0.5 and 0.7 are level on sf_val
    "TripletMarginLoss": {"margin": 0.05},  # sf_val: the library's 0.05 of 0.05, 0.1, 0.2
    "LiftedStructureLoss": {"pos_margin": 0.0, "neg_margin": 1.0},  # Song et al. (CVPR 2016); fails without a miner
    "FastAPLoss": {"num_bins": 30},  # sf_val: 30 of 30 and the 10 of Cakir et al. (CVPR 2019)
    "CentroidTripletLoss": {"margin": 0.05},  # sf_val: 0.05 of 0.05, 0.1, 0.3; takes no pairs: set miner=None
}

Scores = dict[str, dict[int, float]]  # split -> {k: recall in percent}


def check_options(
    settings: Settings,
    weights: Iterable[nn.Parameter] = (),
    loss: nn.Module | None = None,
    num_places: int = 4,
    size: int = 8,
) -> None:
    """Try loss, miner, optimizer and scheduler on a few made-up descriptors, in milliseconds.

    Args:
        settings: loss, miner, optimization.
        weights: of the model, for the optimizer; it is not used.
        loss: an instance that is tried in place of the loss that the settings name; it stays as it is.
        num_places, size: places and D. An instance needs those of the training; for a named loss few are enough.

    Raises:
        ValueError: one of them can't be made, or the loss can't be computed; the message names what was set.
    """
    with torch.random.fork_rng(devices=[]):  # leaves the caller's random state as it is
        torch.manual_seed(0)
        own = loss is not None
        loss = copy.deepcopy(loss) if own else make_loss(settings, num_places, size)
        miner = make_miner(settings)
        places = torch.linspace(0, num_places - 1, 4).long().repeat_interleave(3)  # the first and the last one, too
        descriptors = nn.functional.normalize(torch.randn(12, size)).requires_grad_()
        make_scheduler(settings, make_optimizer(settings, [*(weights or [descriptors]), *loss.parameters()]))
        try:
            value = loss(descriptors, places, miner(descriptors, places) if miner else None)
            if own:
                _check_value(value)
            value.backward()
        except Exception as error:
            tried = f"loss {settings.loss} {settings.loss_options}, miner {settings.miner} {settings.miner_options}"
            tried += f", of descriptors (12, {size}) and places {places.unique().tolist()}," if own else ""
            # Losses that take no pairs raise the library's error about its argument for them.
            advice = "; this loss takes no mined pairs, set miner=None" if "indices_tuple" in str(error) else ""
            raise ValueError(f"{tried} can't be computed: {type(error).__name__}: {error}{advice}") from error


def _check_value(value: Any) -> None:
    """Raise a ValueError unless a loss of one's own is one finite number that depends on the descriptors."""
    if not (isinstance(value, torch.Tensor) and value.ndim == 0 and value.requires_grad and value.isfinite()):
        found = f"a tensor {tuple(value.shape)}" if isinstance(value, torch.Tensor) and value.ndim else repr(value)
        raise ValueError(f"it is {found}; expected one finite number, as a tensor with a gradient")


def make_loss(settings: Settings, num_classes: int, embedding_size: int) -> nn.Module:
    """A loss of pytorch-metric-learning, or `CentroidTripletLoss`; `loss_options` go over `DEFAULT_OPTIONS`.

    Args:
        settings: `loss` is the exact class name.
        num_classes, embedding_size: places and D, for losses with a weight for each place.
    """
    sizes = {"num_classes": num_classes, "embedding_size": embedding_size, "descriptors_dim": embedding_size}
    return _make(losses, losses.BaseMetricLossFunction, "loss", settings.loss, settings.loss_options, sizes)


def make_miner(settings: Settings) -> nn.Module | None:
    """A miner of pytorch-metric-learning by exact class name; None uses all pairs."""
    if settings.miner is None:
        return None
    return _make(miners, miners.BaseMiner, "miner", settings.miner, settings.miner_options, {})


def _make(module: Any, base: type, kind: str, name: str, options: Any, sizes: dict[str, int]) -> nn.Module:
    members = {**vars(module), "CentroidTripletLoss": CentroidTripletLoss}  # the library has none since version 2.0
    classes = {k: value for k, value in members.items() if isinstance(value, type) and issubclass(value, base)}
    cls = classes[check_choice(kind, name, sorted(k for k in classes if not k.startswith("Base")))]
    options = {**DEFAULT_OPTIONS.get(name, {}), **options}
    # Some classes pass *args on to a base class that names the sizes.
    parameters = {name for part in cls.__mro__ for name in inspect.signature(part.__init__).parameters}
    try:
        return cls(**{k: size for k, size in sizes.items() if k in parameters}, **options)
    except Exception as error:  # whatever the library raises for these options
        raise ValueError(f"{kind} {name} can't be made with {options}: {error}") from None


def make_optimizer(settings: Settings, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD with momentum 0.9, over the parameters that aren't frozen; a ValueError if all are."""
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    if not parameters:
        what = f"the backbone is frozen and {settings.aggregator} has no weights"
        raise ValueError(f"nothing is trained: {what}; set freeze_until to an earlier block")
    cls = getattr(torch.optim, settings.optimizer)
    options = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": True}  # one pass over the weights
    if settings.optimizer == "SGD":
        options["momentum"] = 0.9
    return cls(parameters, **options)


Scheduler = lr_scheduler.LRScheduler | lr_scheduler.ReduceLROnPlateau


def make_scheduler(settings: Settings, optimizer: torch.optim.Optimizer) -> Scheduler | None:
    """MultiStepLR, CosineAnnealingLR or ReduceLROnPlateau (on validation recall), stepped once an epoch."""
    match settings.scheduler:
        case "MultiStepLR":
            return lr_scheduler.MultiStepLR(optimizer, settings.milestones, settings.gamma)
        case "CosineAnnealingLR":
            return lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
        case "ReduceLROnPlateau":
            rule = {"mode": "max", "threshold_mode": "abs", "threshold": 0}  # any higher recall is an improvement
            return lr_scheduler.ReduceLROnPlateau(optimizer, factor=settings.gamma, patience=settings.patience, **rule)
        case _:
            return None


def step_scheduler(scheduler: Scheduler | None, scores: Scores) -> None:
    """Step once an epoch; ReduceLROnPlateau sees the R@1 of the first validation split."""
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        scheduler.step(get_first_score(scores))
    elif scheduler:
        with warnings.catch_warnings():
            # A run resumed after an epoch's last batch rightly steps the scheduler first.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            scheduler.step()


@contextlib.contextmanager
def warm_up(optimizer: torch.optim.Optimizer, step: int, warmup_steps: int) -> Iterator[None]:
    """Scale the learning rate for this one step by min(1, (step + 1) / warmup_steps).

    The factor is taken off again after the step, also if that raises an error, so the scheduler's rate stays as it is:
    no milestone is overwritten.
    """
    factor = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    scheduled = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] *= factor
    try:
        yield
    finally:
        for group, lr in zip(optimizer.param_groups, scheduled, strict=True):
            group["lr"] = lr


def get_first_score(scores: Scores) -> float:
    """Recall at the smallest k on the first validation split, in percent."""
    recalls = next(iter(scores.values()))
    return recalls[min(recalls)]
