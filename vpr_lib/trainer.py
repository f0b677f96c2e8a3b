"""One optimizer step, and the state of a training: model, loss, optimizer, scheduler, scaler and progress.

Several processes share each batch. Every one computes the descriptors of its photos and gathers those of all, so that
loss and miner see the whole batch; gradients are summed. They train what one process trains, up to rounding.
"""

import copy
import functools
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vpr_lib import optimization
from vpr_lib.augmentation import normalize
from vpr_lib.checkpoints import get_random_states, load_checkpoint, save_checkpoint, set_random_states
from vpr_lib.descriptors import prepare_for_inference
from vpr_lib.devices import autocast, choose_dtype
from vpr_lib.models import ChunkedModel, split_model, synchronize_batchnorm
from vpr_lib.options import list_changes
from vpr_lib.own_parts import measure_descriptor
from vpr_lib.processes import count_processes, gather_rows, run_on_main
from vpr_lib.progress import Progress
from vpr_lib.settings import Settings


class Trainer:
    """All that changes in a training: model, loss, optimizer, scheduler, scaler and progress.

    Args:
        model: images to descriptors; trained in place.
        settings: loss, miner, optimization.
        num_places: in the training set, for losses with a weight for each.
        device: to train on.
        chunk_size: photos in a forward pass; 0: the whole batch.
        loss: an instance to copy in place of the loss that the settings name; it stays as it is.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        num_places: int,
        device: torch.device,
        chunk_size: int = 0,
        loss: nn.Module | None = None,
    ) -> None:
        self.settings = settings
        self.device, self.chunk_size = device, chunk_size
        self.dtype = choose_dtype(settings.precision, device)
        self.progress = Progress()
        self.model = model.to(device, memory_format=torch.channels_last)
        if count_processes() > 1:
            synchronize_batchnorm(self.model, device)
        size = measure_descriptor(self.model, settings.image_size)
        loss = copy.deepcopy(loss) if loss is not None else optimization.make_loss(settings, num_places, size)
        self.loss = loss.to(device)
        self.trained = split_model(self.model)[1]  # shares the model's modules
        if chunk_size:
            self.trained = ChunkedModel(self.trained, chunk_size)
        if count_processes() > 1 and any(parameter.requires_grad for parameter in self.trained.parameters()):
            unused = self._has_unused_weights()
            self.trained = DistributedDataParallel(self.trained, find_unused_parameters=unused)
            self.trained.register_comm_hook(None, _sum_gradients)
        self.miner = optimization.make_miner(settings)
        self.optimizer = optimization.make_optimizer(settings, [*self.model.parameters(), *self.loss.parameters()])
        self.scheduler = optimization.make_scheduler(settings, self.optimizer)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    @functools.cached_property
    def frozen(self) -> nn.Module:
        """The part of the model that is not trained, for inference; a copy, so it is made after `resume`."""
        frozen, _ = split_model(self.model)
        return nn.Identity() if frozen is None else prepare_for_inference(frozen, self.device)

    def step(self, inputs: torch.Tensor, places: torch.Tensor) -> tuple[float, tuple[torch.Tensor, ...] | None]:
        """One optimizer step; returns the loss, and the miner's pairs as indices into the batch of all processes.

        Args:
            inputs: images (B, 3, H, W) uint8, or their frozen features (B, C, h, w) floating point; of several
                processes, those of this one, of the same size in all.
            places: (B,) int64; -1 for inputs that don't count, which only make the sizes equal.
        """
        with autocast(self.device, self.dtype):
            with torch.no_grad():
                features = inputs if inputs.is_floating_point() else self._compute_features(inputs)
            descriptors = self.trained(features)  # (B, D) float32
        descriptors, places = gather_rows(descriptors), gather_rows(places)  # of R processes: (R * B, D)
        if count_processes() > 1:
            descriptors, places = descriptors[places >= 0], places[places >= 0]
        pairs = self.miner(descriptors, places) if self.miner else None
        loss = self.loss(descriptors, places, pairs)
        if not torch.isfinite(loss):
            advice = "lower the learning rate or try --set precision=float32. The last checkpoint is kept"
            raise FloatingPointError(f"the loss is {loss.item()}: {advice}")
        self.optimizer.zero_grad()
        # Of the whole loss, each process has the gradients for its own photos; DDP adds them up.
        self.scaler.scale(loss).backward()
        if count_processes() > 1:  # those of a loss with weights are the same in all, up to rounding
            for parameter in self.loss.parameters():
                if parameter.grad is not None:
                    dist.broadcast(parameter.grad, 0)
        with optimization.warm_up(self.optimizer, self.progress.step, self.settings.warmup_steps):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.item(), pairs

    def _compute_features(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) uint8 -> (B, C, h, w), of the frozen part; the normalized images themselves if there is none."""
        features = [self.frozen(normalize(chunk)) for chunk in images.split(self.chunk_size or len(images))]
        return features[0] if len(features) == 1 else torch.cat(features)

    def save(self, folder: Path) -> None:
        """Write a checkpoint into the run's folder."""
        states = {name: part.state_dict() for name, part in self._parts().items()}
        states |= {"progress": asdict(self.progress), "random": get_random_states()}
        save_checkpoint(folder, states | {"settings": self.settings.to_dict()})

    def resume(self, folder: Path) -> None:
        """Load the newest checkpoint of the run's folder, if any; one of other settings or model is a ValueError."""
        checkpoint = run_on_main(lambda: load_checkpoint(folder))
        if checkpoint is None:
            return
        if changes := list_changes(checkpoint["settings"], self.settings.to_dict()):
            raise ValueError(f"{folder} holds a run of other settings ({'; '.join(changes)}); choose another folder")
        try:
            for name, part in self._parts().items():
                # The state of an unused scaler is empty: the run began on a device of another precision.
                if checkpoint[name]:
                    part.load_state_dict(checkpoint[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise ValueError(f"the checkpoint in {folder} is of another model: {error}") from None
        set_random_states(checkpoint["random"])
        self.progress = Progress(**checkpoint["progress"])

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "loss": self.loss, "optimizer": self.optimizer, "scaler": self.scaler}
        return parts | ({"scheduler": self.scheduler} if self.scheduler else {})

    def _has_unused_weights(self) -> bool:
        """Whether the model, for example an aggregator from a cell, has weights that its descriptor doesn't use."""
        images = torch.zeros(1, 3, self.settings.image_size, self.settings.image_size, device=self.device)
        weights = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(self.model.eval()(images).sum(), weights, allow_unused=True)
        return any(gradient is None for gradient in gradients)


def _sum_gradients(state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """For DDP, which would take the mean over processes."""
    return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda future: future.value()[0])
