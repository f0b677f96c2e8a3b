"""Frozen features: what is read from the file is what the photos give, in training and in evaluation."""

import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vpr_lib import features as features_module
from vpr_lib.augmentation import normalize
from vpr_lib.backbones import ResNet
from vpr_lib.evaluation import evaluate_run
from vpr_lib.features import FOLDER, open_features
from vpr_lib.images import read_images
from vpr_lib.loading import BatchRequest, PhotoDataset
from vpr_lib.models import VPRModel, build_model, split_model
from vpr_lib.runs import get_run
from vpr_lib.trainer import Trainer
from vpr_lib.training import train

pytestmark = pytest.mark.filterwarnings("ignore:random weights are frozen")


@pytest.fixture
def frozen_settings(settings):
    return replace(
        settings, crop_after="layer2", freeze_until="layer2.0", randaugment_ops=0, precision="float32", ks=(1, 5),
        aggregator="ConvAP",
    )  # fmt: skip


@pytest.fixture
def table(data_root):
    return read_images(data_root / "train")


def list_files(folder):
    return sorted((folder / FOLDER).glob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("freeze_until", ["conv1", "layer1.0", "layer1", "layer2.0", "layer2"])
def test_the_two_parts_of_a_model_are_the_model(frozen_settings, freeze_until):
    model = build_model(replace(frozen_settings, freeze_until=freeze_until))
    frozen, trained = split_model(model)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(trained(frozen(images)), model(images))
    names = ["conv1", "bn1", "layer1.0", "layer1.1", "layer2.0", "layer2.1"]
    count = {"conv1": 2, "layer1.0": 3, "layer1": 4, "layer2.0": 5, "layer2": 6}[freeze_until]
    for number, name in enumerate(names):
        weights = [*model.backbone.model.get_submodule(name).parameters()]
        assert all(weight.requires_grad == (number >= count) for weight in weights)
    whole = build_model(replace(frozen_settings, freeze_until=None))
    assert split_model(whole) == (None, whole)


@pytest.mark.slow
@pytest.mark.parametrize("freeze_until", ["conv1", "layer1", "layer2.0"])
@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_losses_and_gradients_are_those_of_the_photos(
    frozen_settings, table, tmp_path, machine, freeze_until, precision, tolerance
):
    settings = replace(frozen_settings, freeze_until=freeze_until, precision=precision, miner=None)
    rows, places = np.arange(12), torch.arange(12) // 4
    found = {}
    for way in ("photos", "features", "whole model"):
        model = build_model(settings)
        dataset = PhotoDataset(table, settings.image_size)
        if way == "features":
            dataset = open_features(model, settings, table, tmp_path, machine)
        # BatchNorm's statistics of a batch would amplify the rounding of bfloat16.
        trainer = Trainer(model.eval(), settings, 8, torch.device("cpu"))
        if way == "whole model":  # as without any of this: no part is computed by itself
            trainer.frozen, trainer.trained = torch.nn.Identity(), model
        loss, _ = trainer.step(dataset[BatchRequest(rows)].inputs, places)
        gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        found[way] = (loss, gradients)
    loss, gradients = found.pop("whole model")
    for other, its_gradients in found.values():
        assert other == pytest.approx(loss, rel=tolerance)
        assert its_gradients.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert gradient.norm() > 0
            assert (its_gradients[name] - gradient).norm() <= tolerance * 5 * gradient.norm(), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_features_are_the_frozen_part_one_photo_at_a_time(frozen_settings, table, tmp_path, machine, precision):
    settings = replace(frozen_settings, precision=precision, standardize=True)
    model = build_model(settings)
    dtype = getattr(torch, precision)
    features = open_features(model, settings, table, tmp_path, replace(machine, eval_batch_size=5))
    rows = np.array([31, 0, 7])
    found = features[BatchRequest(rows)].inputs
    images = PhotoDataset(table, 32)[BatchRequest(rows)].inputs
    with torch.no_grad():
        slow = torch.cat([split_model(model.eval())[0](normalize(image[None])) for image in images])
    assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
    error = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 5e-2}[precision]
    torch.testing.assert_close(found.float(), slow, rtol=error, atol=error * float(slow.max()))
    assert isinstance(features.features, np.memmap)


@pytest.mark.slow
def test_a_run_from_features_is_the_run_from_photos(frozen_settings, data_root, tmp_path, machine, capsys):
    settings = replace(frozen_settings, epochs=3, precision="float32")
    runs, recalls = [], []
    for name, limit in (("features", 2.0), ("photos", 0.0)):
        its_machine = replace(machine, features_gb=limit)
        runs.append(get_run(settings, data_root, tmp_path / name, machine=its_machine))
        recalls.append(evaluate_run(runs[-1], data_root, "val", its_machine))
    out = capsys.readouterr().out
    assert out.count("computing them once") == 3 and out.count("read as frozen features (up to layer2.0)") == 1
    assert len(list_files(tmp_path / "features")) == 3 and not list_files(tmp_path / "photos")
    weights = [run.load_model().state_dict() for run in runs]
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(recalls[0].distances, recalls[1].distances, rtol=1e-2, atol=1e-3)
    assert recalls[0].recall == recalls[1].recall
    columns = [[row["loss"] for row in run.history] for run in runs]
    assert columns[0] == pytest.approx(columns[1], rel=1e-4)


def forbid(*args):
    raise AssertionError("features were computed again")


@pytest.mark.slow
def test_runs_with_the_same_frozen_part_share_the_features(frozen_settings, data_root, tmp_path, machine, monkeypatch):
    first = get_run(frozen_settings, data_root, tmp_path, machine=machine)
    monkeypatch.setattr(features_module, "write_outputs", forbid)
    for change in ({"aggregator": "GeM"}, {"lr": 0.01, "epochs": 1}, {"num_places": 2}):
        evaluate_run(
            get_run(replace(frozen_settings, **change), data_root, tmp_path, machine=machine), data_root, "val", machine
        )
    evaluate_run(first, data_root, "val", machine)
    assert len(list_files(tmp_path)) == 3  # of train, and of the halves of val
    # The seed chooses the random weights of the frozen part here.
    for change in ({"seed": 1}, {"image_size": 40}, {"freeze_until": "layer1"}, {"precision": "bfloat16"}):
        with pytest.raises(AssertionError, match="again"):
            get_run(replace(frozen_settings, **change), data_root, tmp_path, machine=machine)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"randaugment_ops": 1}, {"crop_min": 0.5}, {"freeze_until": None}])
def test_augmented_or_unfrozen_photos_have_no_features(frozen_settings, data_root, tmp_path, machine, change):
    run = get_run(replace(frozen_settings, **change, epochs=1), data_root, tmp_path, machine=machine)
    evaluate_run(run, data_root, "val", machine)
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.slow
def test_damaged_features_are_made_again(frozen_settings, table, tmp_path, machine, capsys):
    model = build_model(frozen_settings)

    def get():
        return np.array(open_features(model, frozen_settings, table, tmp_path, machine).features)

    first = get()
    (file,) = list_files(tmp_path)
    data = file.read_bytes()
    for damaged in (data[:-1], data[:50], b"", data[:500] + bytes([data[500] ^ 1]) + data[501:], data + b"x"):
        file.write_bytes(damaged)
        capsys.readouterr()
        assert np.array_equal(get(), first) and file.read_bytes() == data
        assert file.name in capsys.readouterr().out
    assert list_files(tmp_path) == [file]


def stop(progress):
    if progress.step == 5:
        raise InterruptedError


@pytest.mark.slow
def test_a_training_stopped_within_an_epoch_resumes_from_features(frozen_settings, table, tmp_path, machine):
    def run(name, on_batch=None):
        model = build_model(frozen_settings)
        train(model, frozen_settings, table, tmp_path / name / "run", None, saving, on_batch)
        return model.state_dict()

    saving = replace(machine, save_every_s=0.0)
    whole = run("whole")
    with pytest.raises(InterruptedError):
        run("stopped", stop)
    (file,) = list_files(tmp_path / "stopped")
    file.unlink()  # features that were deleted meanwhile are the same again
    resumed = run("stopped")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


BYTES = 128 * 4 * 4 * 4  # a photo's features after layer2 of 32 px: 128 channels, 4 x 4, float32


@pytest.mark.slow
def test_the_size_is_bounded(frozen_settings, table, tmp_path, machine, capsys):
    def get(photos):
        return open_features(build_model(frozen_settings), frozen_settings, photos, tmp_path, limited)

    few, more, other, most = table[:8], table[:16], table[8:16], table[:18]
    limited = replace(machine, features_gb=(25 * BYTES) / 1e9)
    assert get(table) is None and "features_gb" in capsys.readouterr().out and not list_files(tmp_path)
    assert get(few) and get(more)
    # Both were used just now, perhaps by a training that still reads them.
    assert get(other) is None and len(list_files(tmp_path)) == 2
    small, large = sorted(list_files(tmp_path), key=lambda path: path.stat().st_size)
    foreign = tmp_path / FOLDER / "somebody's.npy"
    foreign.write_bytes(b"not ours")
    unfinished = tmp_path / FOLDER / f"{'0' * 16}.npy.host.1.tmp"
    unfinished.write_bytes(bytes(4 * BYTES))
    for path, used in ((foreign, 1), (unfinished, 2), (small, 3), (large, 4)):
        os.utime(path, (used, used))
    assert get(few)  # used again
    assert get(most) is None and large.exists()  # deleting it would not suffice
    capsys.readouterr()
    assert get(other)
    out = capsys.readouterr().out
    assert foreign.exists() and small.exists() and not unfinished.exists() and not large.exists()
    assert all(path.name in out for path in (unfinished, large))


def test_a_damaged_file_costs_no_others(frozen_settings, table, tmp_path, machine):
    model = build_model(frozen_settings)
    limited = replace(machine, features_gb=(25 * BYTES) / 1e9)
    for photos in (table[:8], table[:16]):
        assert open_features(model, frozen_settings, photos, tmp_path, limited)
    small, large = sorted(list_files(tmp_path), key=lambda path: path.stat().st_size)
    os.utime(small, (1, 1))
    large.write_bytes(large.read_bytes()[:-1])
    assert open_features(model, frozen_settings, table[:16], tmp_path, limited)
    assert small.exists() and large.exists()


def test_features_in_a_folder_that_can_only_be_read_are_read(frozen_settings, table, tmp_path, machine, monkeypatch):
    first = open_features(build_model(frozen_settings), frozen_settings, table, tmp_path, machine)
    monkeypatch.setattr(features_module.os, "utime", refuse)
    monkeypatch.setattr(features_module, "write_outputs", forbid)
    again = open_features(build_model(frozen_settings), frozen_settings, table, tmp_path, machine)
    assert np.array_equal(first.features, again.features)


def refuse(*args):
    raise PermissionError("read-only")


def test_a_photo_that_is_gone_is_named(frozen_settings, data_root, tmp_path, machine):
    shutil.copytree(data_root / "train", tmp_path / "train")
    table = read_images(tmp_path / "train")
    gone = tmp_path / "train" / table.names[5]
    assert table.fingerprint
    gone.unlink()
    with pytest.raises(FileNotFoundError) as error:
        open_features(build_model(frozen_settings), frozen_settings, table, tmp_path, machine)
    assert gone.name in str(error.value) and not list_files(tmp_path)


def test_spawned_workers_read_the_file_themselves(frozen_settings, table, tmp_path, machine):
    features = open_features(build_model(frozen_settings), frozen_settings, table, tmp_path, machine)
    pickled = pickle.dumps(features)
    request = BatchRequest(np.array([3, 1]))
    assert len(pickled) < features.features.nbytes / 4
    assert torch.equal(pickle.loads(pickled)[request].inputs, features[request].inputs)


def without_pooling(model):
    model.backbone.model.maxpool = nn.Identity()


def with_another_activation(model):
    model.backbone.model.layer1[0].relu = nn.Hardswish()


def with_other_weights(model):
    with torch.no_grad():
        model.backbone.model.layer1[1].conv2.weight[0, 0, 0, 0] += 1e-3


def with_a_hook(model):
    model.backbone.model.layer1[0].register_forward_hook(lambda module, inputs, output: 2 * output)


def standardized(model):
    model.backbone.prepare.standardize = True


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [without_pooling, with_another_activation, with_other_weights, with_a_hook, standardized]
)
def test_another_frozen_part_has_other_features(frozen_settings, table, tmp_path, machine, change):
    model = build_model(frozen_settings)
    open_features(model, frozen_settings, table, tmp_path, machine)
    with torch.no_grad():
        model.backbone.model.layer2[1].conv1.weight += 1  # trained
    open_features(model, frozen_settings, table, tmp_path, machine)
    assert len(list_files(tmp_path)) == 1
    change(model)
    open_features(model, frozen_settings, table, tmp_path, machine)
    assert len(list_files(tmp_path)) == 2


@pytest.mark.slow
def test_other_contents_of_photos_have_other_features(frozen_settings, data_root, tmp_path, machine):
    shutil.copytree(data_root / "train", tmp_path / "train")
    table = read_images(tmp_path / "train")
    open_features(build_model(frozen_settings), frozen_settings, table, tmp_path, machine)
    shutil.copy(table.root / table.names[0], table.root / table.names[-1])
    open_features(build_model(frozen_settings), frozen_settings, read_images(table.root), tmp_path, machine)
    assert len(list_files(tmp_path)) == 2


class Doubled(VPRModel):
    """Computes something of its own."""

    def forward(self, images):
        return F.normalize(super().forward(2 * images))


class Shifted(ResNet):
    def forward(self, images):
        return super().forward(images) + 1


def test_models_that_compute_something_of_their_own_are_not_split(frozen_settings):
    model = build_model(frozen_settings)
    options = {"crop_after": "layer2", "freeze_until": "layer2.0"}
    others = [Doubled(model.backbone, model.aggregator), VPRModel(Shifted(**options), model.aggregator), nn.Flatten()]
    others.append(VPRModel(nn.Conv2d(3, 128, 8, 8), model.aggregator))
    for other in others:
        assert split_model(other) == (None, other)
    assert split_model(VPRModel(ResNet(**options), model.aggregator))[0] is not None


def test_hooks_on_a_stage_are_called(frozen_settings):
    model, called = build_model(frozen_settings), []
    model.backbone.model.layer2.register_forward_hook(lambda *args: called.append("layer2"))
    model(torch.rand(2, 3, 32, 32))
    assert called == ["layer2"]


@pytest.mark.slow
@pytest.mark.parametrize("ops", [0, 1])  # from features; from augmented photos
def test_a_checkpoints_frozen_weights_count(frozen_settings, table, tmp_path, machine, ops):
    """Whatever weights the model had that is resumed."""
    settings = replace(frozen_settings, randaugment_ops=ops)

    def run(name, seed, on_batch=None):
        model = build_model(replace(settings, seed=seed))
        train(model, settings, table, tmp_path / name / "run", None, saving, on_batch)
        return model.state_dict()

    saving = replace(machine, save_every_s=0.0)
    whole = run("whole", 0)
    with pytest.raises(InterruptedError):
        run("stopped", 0, stop)
    resumed = run("stopped", 1)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.slow
def test_features_that_cant_be_written_are_a_warning(frozen_settings, data_root, tmp_path, machine):
    (tmp_path / FOLDER).write_text("a file in place of the folder")
    with pytest.warns(UserWarning, match="features can't be kept"):
        run = get_run(frozen_settings, data_root, tmp_path, machine=machine)
    assert run.complete
