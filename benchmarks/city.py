"""How fast a core renders: python benchmarks/city.py [--size 320] [--photos 400]

Draws a sample of the views of `data/mini`, each split in its share and in the order in which they are rendered, in one
process, from cold caches. Prints photos/s, and how the time divides over the stages of a photo.
"""

import argparse
import time
from collections import Counter
from dataclasses import replace

from vpr_lib.city import drawing
from vpr_lib.city.render import encode
from vpr_lib.city.scene import make_city
from vpr_lib.city.views import CitySettings, make_views

STAGES = ("draw_sky", "draw_distance", "draw_ground", "find_visible", "draw_walls", "draw_things", "develop")


def time_stages(spent: Counter) -> None:
    """Wrap the stages of `draw_photo` with clocks."""
    for name in STAGES:
        stage = getattr(drawing, name)

        def timed(*args, stage=stage, name=name):
            start = time.perf_counter()
            result = stage(*args)
            spent[name] += time.perf_counter() - start
            return result

        setattr(drawing, name, timed)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--photos", type=int, default=400)
    options = parser.parse_args()
    start = time.perf_counter()
    views = make_views(CitySettings(size=options.size))
    print(f"{len(views)} views planned in {time.perf_counter() - start:.1f} s")
    run = 40  # neighbours, as a worker gets them
    starts = range(0, len(views), max(run, len(views) * run // options.photos))
    sample = [replace(view) for first in starts for view in views[first : first + run]]
    spent, size = Counter(), 0
    time_stages(spent)
    start = time.perf_counter()
    for view in sample:
        photo = drawing.draw_photo(make_city(view.city, view.blocks), view.camera, view.moment, view.occluder)
        size += len(encode(photo, 88))
    seconds = time.perf_counter() - start
    rate, kilobytes = len(sample) / seconds, size / 1e3 / len(sample)
    print(f"{len(sample)} photos of {options.size} px: {rate:.1f} photos/s a core, {kilobytes:.0f} kB each")
    for name in STAGES:
        print(f"  {name:14} {1e3 * spent[name] / len(sample):5.1f} ms a photo")


if __name__ == "__main__":
    main()
