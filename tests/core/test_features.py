"""Frozen features: what is read from the file is what the photos give, in training and in evaluation."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from vpr_lib import features as features_module
from vpr_lib.augmentation import normalize
from vpr_lib.evaluation import evaluate_run
from vpr_lib.features import open_features
from vpr_lib.images import read_images
from vpr_lib.loading import BatchRequest, PhotoDataset
from vpr_lib.models import build_model, split_model
from vpr_lib.runs import get_run
from vpr_lib.training import Trainer, train

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
    return sorted((folder / "features").glob("*"))


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
        trainer = Trainer(model, settings, 8, torch.device("cpu"))
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
        slow = torch.cat([model.eval().backbone.forward_frozen(normalize(image[None])) for image in images])
    assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
    error = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 5e-2}[precision]
    torch.testing.assert_close(found.float(), slow, rtol=error, atol=error * float(slow.max()))
    assert isinstance(features.features, np.memmap)


def test_a_run_from_features_is_the_run_from_photos(frozen_settings, data_root, tmp_path, machine, capsys):
    settings = replace(frozen_settings, epochs=3, precision="float32")
    runs, recalls = [], []
    for name, limit in (("features", 2.0), ("photos", 0.0)):
        its_machine = replace(machine, features_gb=limit)
        runs.append(get_run(settings, data_root, tmp_path / name, machine=its_machine))
        recalls.append(evaluate_run(runs[-1], data_root, "val", its_machine))
    out = capsys.readouterr().out
    assert out.count("computed once") == 3 and out.count("read as frozen features (up to layer2.0)") == 1
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


def test_runs_with_the_same_frozen_part_share_the_features(frozen_settings, data_root, tmp_path, machine, monkeypatch):
    first = get_run(frozen_settings, data_root, tmp_path, machine=machine)
    monkeypatch.setattr(features_module, "compute_outputs", forbid)
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


@pytest.mark.parametrize("change", [{"randaugment_ops": 1}, {"crop_min": 0.5}, {"freeze_until": None}])
def test_augmented_or_unfrozen_photos_have_no_features(frozen_settings, data_root, tmp_path, machine, change):
    run = get_run(replace(frozen_settings, **change, epochs=1), data_root, tmp_path, machine=machine)
    evaluate_run(run, data_root, "val", machine)
    assert not (tmp_path / "features").exists()


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


def test_a_training_stopped_within_an_epoch_resumes_from_features(frozen_settings, table, tmp_path, machine):
    def run(name, on_batch=None):
        model = build_model(frozen_settings)
        train(model, frozen_settings, table, tmp_path / name / "run", None, saving, on_batch)
        return model.state_dict()

    def stop(progress):
        if progress.step == 5:
            raise InterruptedError

    saving = replace(machine, save_every_s=0.0)
    whole = run("whole")
    with pytest.raises(InterruptedError):
        run("stopped", stop)
    (file,) = list_files(tmp_path / "stopped")
    file.unlink()  # features that were deleted meanwhile are the same again
    resumed = run("stopped")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_the_size_is_bounded(frozen_settings, table, tmp_path, machine, capsys):
    model = build_model(frozen_settings)
    bytes_each = 128 * 4 * 4 * 4  # layer2 of 32 px: 128 channels, 4 x 4, float32
    few, more, all_but_one = (table[:number] for number in (8, 16, len(table) - 1))
    limited = replace(machine, features_gb=(25 * bytes_each) / 1e9)
    assert open_features(model, frozen_settings, all_but_one, tmp_path, limited) is None
    out = capsys.readouterr().out
    assert "features_gb" in out and "more than" in out and not list_files(tmp_path)
    assert open_features(model, frozen_settings, few, tmp_path, limited)
    assert open_features(model, frozen_settings, more, tmp_path, limited)
    assert len(list_files(tmp_path)) == 2
    by_size = sorted(list_files(tmp_path), key=lambda path: path.stat().st_size)
    os.utime(by_size[0], (1, 1))
    assert open_features(model, frozen_settings, few, tmp_path, limited)  # now used last
    assert open_features(model, frozen_settings, table[8:16], tmp_path, limited)
    assert by_size[0].exists() and not by_size[1].exists() and len(list_files(tmp_path)) == 2


def test_features_that_cant_be_written_are_a_warning(frozen_settings, data_root, tmp_path, machine):
    (tmp_path / "features").write_text("a file in place of the folder")
    with pytest.warns(UserWarning, match="features can't be kept"):
        run = get_run(frozen_settings, data_root, tmp_path, machine=machine)
    assert run.complete
