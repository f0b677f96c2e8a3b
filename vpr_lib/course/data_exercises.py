"""Checks of notebook 01's exercises, as in `exercises`."""

from collections.abc import Callable

import numpy as np

from vpr_lib.course.checking import (
    WrongAnswer,
    exercise,
    require,
    require_close,
    require_indices,
    require_mask,
    require_pair,
)
from vpr_lib.file_names import format_name


@exercise
def check_read_utm(read_utm: Callable[[str], tuple[float, float]]) -> None:
    """1.1: name of a photo, possibly with folders before it -> (east, north)."""
    name = format_name(east="544050.17", north="4174706.96", zone="10", letter="S", heading="398")
    result = require_pair(read_utm(name), "(east, north)")
    require(result != (4174706.96, 544050.17), "east and north are exchanged")
    require_close(result, (544050.17, 4174706.96), f"for {name} it returns {result}")
    message = "an @ in the name of a folder shifts the fields; read the name of the file only"
    try:
        result = read_utm(f"photos@home/{name}")
    except ValueError:
        raise WrongAnswer(message) from None
    require_close(require_pair(result, "(east, north)"), (544050.17, 4174706.96), message)


@exercise
def check_is_positive(is_positive: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """1.2: (2,) query position, (N, 2) database positions -> (N,) bool, within 25 m."""
    query = np.array([544050.0, 4174706.0])
    offsets = np.array([[0, 0], [15, 20], [15.01, 20], [-24, 0], [20, 20], [0, 4000.0]])
    result = require_mask(is_positive(query, query + offsets), 6)
    require(not result[4], "a photo 20 m east and 20 m north is 28 m away: add the squares, then take the root")
    require(result[1], "a photo at exactly 25 m is a positive")
    require(not result[2], "a photo at 25.01 m is not a positive")
    require_close(result, [True, True, False, True, False, False], f"for photos at {offsets.tolist()}: {result}")


@exercise
def check_draw_batch(draw_batch: Callable[..., np.ndarray]) -> None:
    """1.3: (N,) places, P, K, a generator -> rows of P places x K distinct photos."""
    places = np.array([f"place {i // 5}" for i in range(40)] + ["few", "few"] + ["just enough"] * 3)
    batches = [
        require_indices(draw_batch(places, 4, 3, np.random.default_rng(seed)), len(places)) for seed in range(50)
    ]
    for rows in batches:
        require(rows.size == 12, f"it returns {rows.size} rows; expected 4 places x 3 photos = 12")
        require(len(set(rows.tolist())) == 12, "a photo is drawn twice: draw without replacement")
        names, counts = np.unique(places[rows], return_counts=True)
        require("few" not in names, "a place with 2 photos cannot give 3; leave it out")
        require(len(names) == 4 and set(counts.tolist()) == {3}, f"it draws {counts} photos of the places {names}")
    again = draw_batch(places, 4, 3, np.random.default_rng(0))
    require(np.array_equal(again, batches[0]), "an equal generator should give the same batch: draw with `rng` only")
    require(len({tuple(rows.tolist()) for rows in batches}) > 40, "another generator should give another batch")
    drawn = {row for rows in batches for row in rows.tolist()}
    require("just enough" in places[list(drawn)], "a place with exactly K photos is never drawn")
    require(len(drawn) == 43, "some photos are never drawn")


@exercise
def check_find_leaks(find_leaks: Callable[..., np.ndarray]) -> None:
    """1.4: (N, 2) training positions, (M, 2) test positions, radius -> test rows near any training photo."""
    train, test = np.split(np.random.default_rng(0).uniform(0, 400, (100, 2)), [60])
    for radius_m in (25.0, 10.0):
        result = np.sort(require_indices(find_leaks(train, test, radius_m), len(test))).tolist()
        require(len(set(result)) == len(result), "it returns a test photo more than once")
        expected = [row for row in range(40) if min(np.hypot(*(test[row] - other)) for other in train) <= radius_m]
        message = f"it returns {len(result)} of 40 test photos; {len(expected)} are within {radius_m:.0f} m"
        require(len(result) == len(expected), message)
        require(result == expected, f"it returns the test photos {result}; expected {expected}")
    result = find_leaks(train + 1e6, test, 25.0)
    require(np.size(result) == 0, "it returns test photos 1,000 km away from all training photos")
