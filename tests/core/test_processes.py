"""Several processes train, describe and search what one does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_root
from several_processes import run_together

from vpr_lib.runs import get_run
from vpr_lib.settings import get_preset

FROZEN = replace(
    get_preset("smoke"), aggregator="MixVPR", aggregator_options={"MixVPR": {"out_channels": 16, "out_rows": 2}},
    image_size=32, crop_after="layer1", freeze_until="layer1", num_places=6, images_per_place=2, epochs=2,
    randaugment_ops=0, precision="float32", keep="last", ks=(1, 5), lr=1e-2,
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_root(tmp_path_factory.mktemp("processes") / "root", num_places=11)


def train(settings, root, runs, machine):
    run = get_run(settings, root, runs, machine=machine)
    state = torch.load(run.folder / "model.pt", weights_only=True)["state_dict"]
    return {name: value.numpy() for name, value in state.items()}, run.history


def difference(first, second):
    return max(float(np.abs(first[name].astype(float) - second[name]).max()) for name in first)


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("changes", [
    {}, {"randaugment_ops": 1, "crop_min": 0.5}, {"optimizer": "SGD", "loss": "ArcFaceLoss", "miner": None},
], ids=["features", "augmented", "loss with weights"])  # fmt: skip
def test_processes_train_what_one_does(root, tmp_path, machine, number, changes, summary):
    settings = replace(FROZEN, **changes)
    alone, history = train(settings, root, tmp_path / "one", machine)
    results = run_together(number, train, settings, root, tmp_path / "many", machine)
    print(results)
    far = difference(alone, results[0][0])
    summary(f"{number} processes, {changes or 'features'}: largest difference of a weight {far:.1e}")
    assert far < 1e-5
