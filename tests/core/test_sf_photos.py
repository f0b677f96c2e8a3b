"""The whole way on real photos of San Francisco; skipped where they are not at hand."""

import numpy as np
import pytest

from vpr_lib.data_roots import read_split
from vpr_lib.evaluation import evaluate_run
from vpr_lib.images import read_images
from vpr_lib.runs import get_run
from vpr_lib.settings import get_preset, replace


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
def test_training_on_real_photos_beats_chance_by_far(sf_photos, tmp_path, machine):
    """Three epochs at 64 px; by chance a query finds one of its 8 or so positives among 384 photos: R@1 of 2."""
    settings = replace(get_preset("photos"), aggregator="ConvAP", epochs=3, image_size=64)
    evaluation = evaluate_run(get_run(settings, sf_photos, tmp_path, machine=machine), sf_photos, "val", machine)
    assert evaluation.num_queries == 96 and evaluation.num_without_positive == 0
    assert evaluation.recall[1] > 20 and evaluation.recall[25] > 60
