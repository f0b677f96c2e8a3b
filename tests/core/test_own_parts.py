"""An aggregator, backbone or loss from a cell: trained, found again, loaded, resumed, or refused by name."""

import functools
import json

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses
from torch import nn

from vpr_lib.aggregators import GeM
from vpr_lib.backbones import Backbone
from vpr_lib.checkpoints import load_checkpoint
from vpr_lib.evaluation import evaluate_run
from vpr_lib.features import FOLDER
from vpr_lib.models import build_model
from vpr_lib.own_parts import make_part
from vpr_lib.run_folders import open_run
from vpr_lib.runs import get_run, train_run
from vpr_lib.settings import Settings, replace


class Tiny(nn.Module):
    """A backbone of one layer that is frozen and one that is trained."""

    def __init__(self, out_channels=8, dropout=0.0):
        super().__init__()
        self.out_channels = out_channels
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.ReLU())
        self.stem.requires_grad_(False)
        self.last = nn.Sequential(nn.Conv2d(8, out_channels, 3), nn.BatchNorm2d(out_channels), nn.Dropout(dropout))

    def forward(self, images):
        return self.last(self.stem(images))


def add_margin(embeddings, labels, indices_tuple, margin=0.1):
    """A loss of the miner's pairs."""
    positives, negatives = indices_tuple[:2], indices_tuple[2:]
    similarities = embeddings @ embeddings.T
    return (1 - similarities[positives]).sum() + (similarities[negatives] + margin).sum() + 0 * labels.sum()


def pull(embeddings, labels, weight=1.0):
    """A loss without a miner."""
    same = labels[:, None] == labels[None]
    return (embeddings @ embeddings.T)[~same].mean() - weight * (embeddings @ embeddings.T)[same].mean()


def make_arcface():
    return losses.ArcFaceLoss(num_classes=8, embedding_size=8)


def weights_of(run):
    return run.load_model().state_dict()


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_a_backbone_of_ones_own_is_trained_once_and_loaded_again(small, data_root, tmp_path, machine):
    run = get_run(small, data_root, tmp_path, machine=machine, backbone=Tiny)
    assert run.complete and run.settings.backbone == "own:Tiny" and run.settings.weights is None
    written = (run.folder / "model.pt").stat().st_mtime_ns
    again = get_run(replace(small, crop_after="layer2"), data_root, tmp_path, machine=machine, backbone=Tiny)
    assert again.folder == run.folder and (run.folder / "model.pt").stat().st_mtime_ns == written
    opened = open_run(run.folder, backbone=Tiny)
    assert same(weights_of(opened), weights_of(run))
    assert evaluate_run(opened, data_root, "val", machine).recall == evaluate_run(run, data_root, "val", machine).recall
    start = build_model(small, backbone=make_part("backbone", Tiny, small.seed)).state_dict()
    changed = {name for name, value in weights_of(run).items() if not torch.equal(value, start[name])}
    trained = {f"backbone.last.{name}" for name in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean")}
    assert trained < changed and not any(name.startswith("backbone.stem") for name in changed)
    assert not (tmp_path / FOLDER).exists()  # its frozen part is its own business


@pytest.mark.slow
def test_other_code_or_arguments_of_a_part_are_another_run(small, data_root, tmp_path, machine, monkeypatch):
    def run(**parts):
        return get_run(small, data_root, tmp_path, machine=machine, **parts).folder

    folders = [
        run(), run(backbone=Tiny), run(backbone=lambda: Tiny(dropout=0.1)), run(loss=add_margin),
        run(loss=losses.ContrastiveLoss()), run(loss=losses.ContrastiveLoss(neg_margin=0.5)),
        run(backbone=Tiny, loss=add_margin), run(loss=functools.partial(add_margin, margin=0.2)),
    ]  # fmt: skip
    monkeypatch.setattr(Tiny, "forward", lambda self, images: self.last(self.stem(2 * images)))
    folders.append(run(backbone=Tiny))
    assert len({*folders}) == len(folders)
    with pytest.raises(ValueError, match="another version of GeM or own:Tiny"):
        open_run(folders[1], backbone=Tiny).load_model()


@pytest.mark.slow
def test_the_kits_classes_as_parts_train_what_their_names_train(small, data_root, tmp_path, machine):
    """With frozen features, too: the same weights to the last bit."""
    settings = replace(small, weights=None, freeze_until="layer1.0", randaugment_ops=0, epochs=2)
    with pytest.warns(UserWarning, match="random weights are frozen"):
        named = get_run(settings, data_root, tmp_path / "named", machine=machine)
    parts = {
        "aggregator": GeM,
        "backbone": lambda: Backbone("resnet18", None, "layer1", "layer1.0"),
        "loss": losses.MultiSimilarityLoss(alpha=1.0, beta=50.0, base=0.0),
    }
    own = get_run(settings, data_root, tmp_path / "own", machine=machine, **parts)
    assert same(weights_of(own), weights_of(named))
    assert [row["loss"] for row in own.history] == [row["loss"] for row in named.history]
    files = [{path.name for path in (tmp_path / name / FOLDER).iterdir()} for name in ("named", "own")]
    assert files[0] == files[1] and len(files[0]) == 3


def test_a_thawed_weight_of_the_kits_backbone_is_trained(small, data_root, tmp_path, machine):
    def make():
        backbone = Backbone("resnet18", None, "layer1", "layer1")
        backbone.model.conv1.requires_grad_(True)
        return backbone

    settings = replace(small, randaugment_ops=0)
    run = get_run(settings, data_root, tmp_path, machine=machine, backbone=make)
    start = make_part("backbone", make, settings.seed).model.conv1.weight
    assert not torch.equal(run.load_model().backbone.model.conv1.weight, start)


class Stop(BaseException):
    """Ends a training between two batches, as a crash would."""


@pytest.mark.slow
def test_a_stopped_training_of_own_parts_resumes_to_the_same_weights(small, data_root, tmp_path, machine):
    settings = replace(small, epochs=3, miner=None)
    parts = {"backbone": lambda: Tiny(dropout=0.3), "loss": make_arcface}
    whole = get_run(settings, data_root, tmp_path / "whole", machine=machine, **parts)

    def stop(progress):
        if progress.step == 5:
            raise Stop

    saving = replace(machine, save_every_s=0.0)
    with pytest.raises(Stop):
        get_run(settings, data_root, tmp_path / "stopped", machine=saving, on_batch=stop, **parts)
    resumed = get_run(settings, data_root, tmp_path / "stopped", machine=machine, **parts)
    assert resumed.folder.name == whole.folder.name and same(weights_of(resumed), weights_of(whole))
    ends = [load_checkpoint(run.folder)["loss"] for run in (resumed, whole)]
    assert same(*ends)


@pytest.mark.slow
def test_the_weights_of_a_loss_are_trained_and_its_instance_stays(small, data_root, tmp_path, machine):
    loss = make_part("loss", make_arcface, 0)
    before = loss.W.detach().clone()
    run = get_run(replace(small, miner=None), data_root, tmp_path, machine=machine, backbone=Tiny, loss=loss)
    assert run.settings.loss == "ArcFaceLoss"
    assert torch.equal(loss.W, before)
    assert not torch.equal(load_checkpoint(run.folder)["loss"]["W"], before)
    named = get_run(replace(small, miner=None, loss="ArcFaceLoss"), data_root, tmp_path, machine=machine)
    assert named.folder != run.folder


@pytest.mark.slow
def test_a_function_is_the_loss_that_its_class_is(small, data_root, tmp_path, machine):
    def contrast(embeddings, labels, indices_tuple):
        distances = torch.cdist(embeddings, embeddings)
        near, far = distances[indices_tuple[:2]], F.relu(1 - distances[indices_tuple[2:]])
        means = [part[part > 0].mean() if (part > 0).any() else part.sum() for part in (near, far)]
        return means[0] + means[1]

    settings = replace(small, precision="float32", loss="ContrastiveLoss")
    named = get_run(settings, data_root, tmp_path, machine=machine)
    own = get_run(settings, data_root, tmp_path, machine=machine, loss=contrast)
    assert own.settings.loss == "contrast"
    assert own.history[0]["loss"] == pytest.approx(named.history[0]["loss"], rel=1e-4)
    assert get_run(replace(small, miner=None), data_root, tmp_path, machine=machine, loss=pull).complete


@pytest.mark.slow
def test_chunks_of_a_batch_train_what_the_batch_trains(small, data_root, tmp_path, machine):
    class Plain(nn.Module):
        """Without BatchNorm, which would see the chunk."""

        def __init__(self):
            super().__init__()
            self.out_channels = 8
            self.conv = nn.Conv2d(3, 8, 5, stride=4)

        def forward(self, images):
            return self.conv(images).relu()

    settings = replace(small, precision="float32", miner=None)
    found = [
        weights_of(get_run(settings, data_root, tmp_path / str(size), machine=each, backbone=Plain, loss=make_arcface))
        for size in (0, 2)
        for each in (replace(machine, train_chunk_size=size),)
    ]
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-5)


def test_random_weights_follow_the_seed_and_leave_the_callers_numbers():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, again, other = (make_part("backbone", Tiny, seed).state_dict() for seed in (1, 1, 2))
    assert same(one, again) and not same(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    instance = Tiny()
    assert make_part("backbone", instance, 0) is instance and make_part("backbone", None, 0) is None


class NoChannels(Tiny):
    def __init__(self):
        super().__init__()
        del self.out_channels


class WrongChannels(Tiny):
    def __init__(self):
        super().__init__()
        self.out_channels = 512


class Flat(Tiny):
    def forward(self, images):
        return super().forward(images).mean((2, 3))


class NotFinite(Tiny):
    def forward(self, images):
        return super().forward(images) / 0


class NeedsArguments(Tiny):
    def __init__(self, width):
        super().__init__(width)


class Broken(nn.Module):
    out_channels = 8

    def forward(self, images):
        return self.missing(images)


class Pairs(nn.Module):
    def forward(self, x):
        return x.flatten(2)


class Infinite(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) / 0


@pytest.mark.slow
@pytest.mark.parametrize("parts, message", [
    ({"backbone": NoChannels}, r"NoChannels: out_channels is missing; set self\.out_channels = 8"),
    ({"backbone": WrongChannels}, r"WrongChannels: out_channels is 512; set self\.out_channels = 8"),
    ({"backbone": Flat}, r"Flat returned a tensor \(2, 8\)"),
    ({"backbone": NotFinite}, "NotFinite .*finite"),
    ({"backbone": NeedsArguments}, r"NeedsArguments .*lambda: NeedsArguments\("),
    ({"backbone": Broken}, "Broken can't compute .*missing"),
    ({"backbone": "resnet34"}, r"replace\(settings, backbone='resnet34'\)"),
    ({"backbone": lambda: "resnet34"}, "returned str"),
    ({"backbone": 3}, "backbone is 3"),
    ({"aggregator": Pairs}, r"returned a tensor \(2, 64, "),
    ({"aggregator": Infinite}, "finite"),
    ({"aggregator": "GeM"}, r"replace\(settings, aggregator='GeM'\)"),
    ({"loss": lambda embeddings: embeddings.sum()}, r"\(embeddings, labels\)"),
    ({"loss": losses.ArcFaceLoss}, r"lambda: ArcFaceLoss\("),
    ({"loss": lambda: losses.ArcFaceLoss(num_classes=2, embedding_size=64)}, r"ArcFaceLoss .*places \[0, .*7\]"),
    ({"loss": lambda: losses.ArcFaceLoss(num_classes=8, embedding_size=3)}, r"ArcFaceLoss .*descriptors \(12, 64\)"),
    ({"loss": pull}, "pull .*set miner=None"),
    ({"loss": lambda embeddings, labels, pairs: embeddings @ embeddings.T}, r"a tensor \(12, 12\)"),
    ({"loss": lambda embeddings, labels, pairs: 1.0}, "it is 1.0; expected one finite number"),
    ({"loss": lambda embeddings, labels, pairs: embeddings.sum() / 0}, "finite"),
    ({"loss": "TripletMarginLoss"}, r"replace\(settings, loss='TripletMarginLoss'\)"),
])  # fmt: skip
def test_a_part_that_does_not_fit_is_refused_before_anything_is_written(
    small, data_root, tmp_path, machine, parts, message
):
    for train, folder in ((get_run, tmp_path), (train_run, tmp_path / "run")):
        with pytest.raises(ValueError, match=message):
            train(small, data_root, folder, machine=machine, **parts)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_opening_a_run_of_own_parts_says_what_to_pass(small, data_root, tmp_path, machine):
    class Max(nn.Module):
        def forward(self, x):
            return F.normalize(x.amax((2, 3)))

    parts = {"aggregator": Max, "backbone": Tiny, "loss": add_margin}
    folder = get_run(small, data_root, tmp_path, machine=machine, **parts).folder
    for missing in ("aggregator", "backbone"):
        given = {what: part for what, part in parts.items() if what != missing}
        name = parts[missing].__name__
        with pytest.raises(ValueError, match=rf"the {missing} {name} .*open_run\('.*', {missing}={name}\)"):
            open_run(folder, **given)
    del parts["loss"]  # the model needs none
    assert open_run(folder, **parts).load_model()
    kit = get_run(small, data_root, tmp_path, machine=machine).folder
    for what, part in {"aggregator": Max, "backbone": Tiny, "loss": pull}.items():
        with pytest.raises(ValueError, match=f"leave out {what}="):
            open_run(kit, **{what: part})


def test_settings_of_an_own_backbone_survive_json_and_need_it():
    settings = replace(Settings(), backbone="own:Tiny")
    assert Settings.from_dict(json.loads(settings.to_json())) == settings
    with pytest.raises(ValueError, match=r"own:Tiny is no backbone of the kit; pass it .*backbone="):
        build_model(settings)
