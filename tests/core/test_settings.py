"""Settings: a wrong value is named when it is set, before anything is computed or written."""

import copy
import json
import math
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest

from vpr_lib.blocks import find_points
from vpr_lib.city import CitySettings
from vpr_lib.machine import Machine
from vpr_lib.settings import PRESETS, Settings

NAN, INFINITY = math.nan, math.inf
WRONG = {
    "backbone": ["resnet", None, 18], "weights": [0, True], "crop_after": ["layer", "layer5", "stride2", None],
    "freeze_until": ["layer4", "layer", "layer3.2", 2], "standardize": [1, "yes", None], "aggregator": [None, 3],
    "aggregator_options": [None, "GeM", {"GeM": 3.0}, {"GeM": {"p": NAN}}], "image_size": [0, 32.0, "32", True],
    "num_places": [1, NAN, 8.0], "images_per_place": [1, -4, None], "crop_min": [0.0, 1.1, NAN, "1"],
    "randaugment_ops": [-1, 1.5, False], "randaugment_magnitude": [-1, 31, 300, NAN], "loss": [None, 1],
    "loss_options": [None, [1], {"alpha": NAN}, {"beta": INFINITY}, {"alpha": {1}}], "miner": [1],
    "miner_options": [None, {"epsilon": [NAN]}], "optimizer": ["adam", None, 1],
    "lr": [0.0, -0.1, NAN, INFINITY, "0.1", True, 10**400],
    "weight_decay": [-1e-9, NAN, INFINITY, None], "scheduler": ["Cosine", 0], "precision": ["half", None],
    "milestones": [3, (0, 2), (2, 2), (5, 3), (2.5,), ("3",), None], "gamma": [-1.0, 0.0, 1.5, NAN],
    "patience": [-1, 1.0], "warmup_steps": [-600, 20.0, NAN], "epochs": [0, 2.5, NAN, "3"],
    "seed": [-1, 2**32, 0.0, np.float64(1.0)], "val_splits": ["val", (1,), [None], 0], "keep": ["first", None],
    "ks": [(), (0, 1), (1, 1, 5), 5, (1.0,), ("1",), None], "radius_m": [0.0, -25.0, NAN, INFINITY, "25"],
}  # fmt: skip
WRONG_MACHINE = {
    "device": [None, 0], "num_workers": [-2, 1.0, True], "save_every_s": [-1.0, NAN, INFINITY],
    "cache_gb": [-0.1, NAN, "1"], "features_gb": [-1.0, INFINITY], "eval_batch_size": [-1, 64.0],
    "train_chunk_size": [-1, 2.5], "progress": [0, "no"],
}  # fmt: skip


def test_every_field_is_tried_below():
    assert {field.name for field in fields(Settings)} == {*WRONG}
    assert {field.name for field in fields(Machine)} == {*WRONG_MACHINE}


@pytest.mark.parametrize("defaults, name, value", [
    *((Settings(), name, value) for name, values in WRONG.items() for value in values),
    *((Machine(), name, value) for name, values in WRONG_MACHINE.items() for value in values),
])  # fmt: skip
def test_a_wrong_value_is_named(defaults, name, value):
    with pytest.raises(ValueError, match=name):
        replace(defaults, **{name: value})
    if defaults == Settings():
        with pytest.raises(ValueError, match=name):
            Settings.from_dict({name: value})


@pytest.mark.parametrize("options, name, nearest", [
    (Settings(), "lerning_rate", "lr"), (Settings(), "epoch", "epochs"), (Settings(), "optimiser", "optimizer"),
    (Machine(), "workers", "num_workers"), (CitySettings(), "place", "places"), (Settings(), "xyz", None),
])  # fmt: skip
def test_replace_lists_the_valid_names_and_the_nearest(options, name, nearest):
    advice = f"did you mean {nearest}\\? " if nearest else ""
    valid = ", ".join(field.name for field in fields(options))
    for change in (lambda: replace(options, **{name: 1}), lambda: type(options)(**{name: 1})):
        with pytest.raises(ValueError, match=f"unknown setting '{name}'; {advice}valid: {valid}$"):
            change()
    assert pickle.loads(pickle.dumps(options)) == copy.deepcopy(options) == replace(options) == options


@pytest.mark.parametrize("values", [
    {"crop_after": "layer1", "freeze_until": "layer2"},  # beyond the crop
    {"scheduler": "ReduceLROnPlateau", "gamma": 1.0},
    {"standardize": False, "weights": "city"},
])  # fmt: skip
def test_values_that_do_not_go_together_are_named(values):
    with pytest.raises(ValueError, match=list(values)[1]):
        Settings(**values)


@pytest.mark.parametrize("values", [
    {"crop_min": 1.0, "gamma": 1.0, "randaugment_magnitude": 30, "seed": 2**32 - 1},  # the ends of their ranges
    {"randaugment_magnitude": 0, "randaugment_ops": 0, "warmup_steps": 0, "patience": 0, "weight_decay": 0.0},
    {"milestones": (), "val_splits": (), "ks": (25, 1), "miner": None, "scheduler": None, "freeze_until": None},
    {"freeze_until": "layer4", "crop_after": "layer4", "weights": "folder/weights.pt", "aggregator": "MyOwn"},
])  # fmt: skip
def test_whatever_makes_sense_is_taken_as_it_is(values):
    settings = Settings(**values)
    assert {name: getattr(settings, name) for name in values} == values


def test_equal_settings_have_equal_texts_however_they_were_given():
    plain = Settings(lr=1.0, radius_m=10.0, milestones=(3, 5), ks=(1, 5), loss_options={"alpha": [1, 2]})
    other = Settings(lr=1, radius_m=np.float64(10), milestones=[3, 5], ks=[1, 5], loss_options={"alpha": (1, 2)})
    assert other == plain and other.to_json() == plain.to_json()
    assert Settings.from_dict(json.loads(plain.to_json())) == plain


def test_changing_a_given_mapping_later_changes_no_settings():
    options = {"GeM": {"p": 3.0}}
    settings = Settings(aggregator_options=options)
    options["GeM"]["p"] = 4.0
    assert settings.aggregator_options == {"GeM": {"p": 3.0}}


def test_presets_are_valid():
    for settings in PRESETS.values():
        assert replace(settings) == settings


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet18", "resnet101", "efficientnet_b0", "swin_v2_t", "dinov2_vits14"])
@pytest.mark.parametrize("preset", ["photos", "smoke", "xs"])
def test_presets_take_other_backbones(preset, backbone):
    if (preset, backbone) != ("xs", "dinov2_vits14"):  # no block of which has a stride of 8
        assert replace(PRESETS[preset], backbone=backbone).backbone == backbone


def test_frozen_blocks_by_name_stage_stride_and_position():
    for freeze_until, number in {
        "conv1": 1,
        "layer1.0": 2,
        "layer2": 5,
        "stride8": 5,
        "layer3.0": 6,
        "crop-1": 6,
    }.items():
        assert find_points("resnet18", "layer3", freeze_until) == (7, number)
    assert find_points("resnet18", "stride16", None) == (7, 0)
    assert find_points("efficientnet_lite0", "stride16", "crop-1") == (12, 11)
    with pytest.raises(ValueError, match="crop_after"):
        find_points("resnet18", "crop-1", None)
