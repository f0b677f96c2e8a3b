"""The whole way on real photos of San Francisco; skipped where they are not at hand."""

import json

import numpy as np
import pytest

from vpr_lib.command_line.parser import main
from vpr_lib.data_roots import read_split
from vpr_lib.images import read_images


def test_names_of_real_photos(sf_photos):
    train = read_images(sf_photos / "train")
    assert len(train) == 1182
    counts = np.unique(train.places.astype(str), return_counts=True)[1]
    assert len(counts) == 148 and counts.min() >= 4 and counts.max() <= 9
    database, queries = read_split(sf_photos, "val")
    assert (len(database), len(queries)) == (384, 96)
    assert set(train.headings) == {0.0}
    years = train.dates.astype("datetime64[Y]").astype(int) + 1970
    assert years.min() >= 2007 and years.max() <= 2021


@pytest.mark.slow
def test_training_on_real_photos_beats_chance_by_far(sf_photos, tmp_path, capsys):
    """Three epochs at 64 px; by chance a query finds one of its 8 or so positives among 384 photos: R@1 of 2."""
    run = str(tmp_path / "run")
    train = ["train", "--data", str(sf_photos), "--out", run, "--preset", "photos", "--aggregator", "ConvAP"]
    assert main([*train, "--epochs", "3", "--image-size", "64", "--set", "progress=false"]) == 0
    assert "1182 photos of 148 places" in capsys.readouterr().out
    out = tmp_path / "recall.json"
    assert main(["evaluate", "--run", run, "--data", str(sf_photos), "--split", "val", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["queries"] == 96 and found["without_positive"] == 0
    assert found["recall"]["1"] > 20 and found["recall"]["25"] > 60
