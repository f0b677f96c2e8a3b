"""Measures how many photos of the rendered city a core draws: python benchmarks/city.py [--size 320] [--photos 400]

Draws a sample of the views of `data/mini`, each split in its share and in the order in which they are rendered, in one
process, from empty caches. Prints photos a second, and the time that each stage of a photo takes.
"""

import argparse
import time
from collections import Counter

from vpr_lib.city import photo
from vpr_lib.city.planning import make_views
from vpr_lib.city.render import draw_view, encode_jpeg
from vpr_lib.city.views import CitySettings

STAGES = ("draw_sky", "draw_distance", "draw_ground", "find_visible_walls", "draw_walls", "draw_street_objects",
          "apply_lens")  # fmt: skip
NEIGHBORS = 40  # views in a row, as a worker gets them


def time_stages(seconds: Counter) -> None:
    """Wrap the stages of `draw_photo` with clocks."""
    for name in STAGES:
        stage = getattr(photo, name)

        def timed(*args, stage=stage, name=name):
            start = time.perf_counter()
            result = stage(*args)
            seconds[name] += time.perf_counter() - start
            return result

        setattr(photo, name, timed)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--photos", type=int, default=400)
    options = parser.parse_args()
    start = time.perf_counter()
    views = make_views(CitySettings(size=options.size))
    print(f"{len(views)} views planned in {time.perf_counter() - start:.1f} s")
    starts = range(0, len(views), max(NEIGHBORS, len(views) * NEIGHBORS // options.photos))
    sample = [view for first in starts for view in views[first : first + NEIGHBORS]]
    stage_seconds = Counter()
    time_stages(stage_seconds)
    start = time.perf_counter()
    num_bytes = sum(len(encode_jpeg(draw_view(view), 88)) for view in sample)
    seconds = time.perf_counter() - start
    rate, kilobytes = len(sample) / seconds, num_bytes / 1e3 / len(sample)
    print(f"{len(sample)} photos of {options.size} px: {rate:.1f} photos/s a core, {kilobytes:.0f} kB each")
    for name in STAGES:
        print(f"  {name:20} {1e3 * stage_seconds[name] / len(sample):5.1f} ms a photo")


if __name__ == "__main__":
    main()
