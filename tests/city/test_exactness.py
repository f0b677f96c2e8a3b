"""The same settings give the same photos, whichever code the processor's libraries choose and however many workers."""

import json
import math
import os
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image, ImageChops

from vpr_lib.city.exact_math import cosine, find_angle, measure_length, sine, tangent
from vpr_lib.city.pictures import count_halvings, make_rng, tint

NUMPY_CORE = np._core if hasattr(np, "_core") else np.core  # the name before NumPy 2
# Each makes another library take the code it has for old processors; what a library doesn't know is ignored.
OLD_PROCESSOR = {
    "OPENBLAS_CORETYPE": "Nehalem",
    "NPY_DISABLE_CPU_FEATURES": " ".join(NUMPY_CORE._multiarray_umath.__cpu_dispatch__),
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F",
    "JSIMD_FORCENONE": "1",
}
RENDER = """
import json, sys, warnings
warnings.simplefilter("ignore")  # NumPy names the features that this processor doesn't have
from vpr_lib.city import CitySettings, write_city
write_city(sys.argv[1], CitySettings(**json.loads(sys.argv[2])), workers=0, progress=False)
"""


def read_files(folder):
    paths = [*folder.rglob("*.jpg"), folder / "scenarios.csv"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.slow
@pytest.mark.parametrize("changed", [["OPENBLAS_CORETYPE"], list(OLD_PROCESSOR)])
def test_photos_do_not_depend_on_the_processor(rendered_city, city_settings, tmp_path, changed):
    environment = os.environ | {name: OLD_PROCESSOR[name] for name in changed}
    command = [sys.executable, "-c", RENDER, str(tmp_path / "city"), json.dumps(asdict(city_settings))]
    subprocess.run(command, check=True, env=environment)
    photos, expected = read_files(tmp_path / "city"), read_files(rendered_city)
    assert photos.keys() == expected.keys()
    assert not [name for name, data in photos.items() if data != expected[name]]


def test_functions_agree_with_those_of_the_c_library():
    for degrees in np.random.default_rng(0).uniform(-360, 360, 50).tolist() + [0.0, 30.0, 45.0, 180.0]:
        radians = math.radians(degrees)
        assert sine(degrees) == pytest.approx(math.sin(radians), abs=1e-9)
        assert cosine(degrees) == pytest.approx(math.cos(radians), abs=1e-9)
        assert tangent(degrees) == pytest.approx(math.tan(radians), rel=1e-8, abs=1e-9)
        east, north = 7 * math.sin(radians), 7 * math.cos(radians)
        assert measure_length(east, north) == pytest.approx(7)
        assert (find_angle(east, north) - degrees + 180) % 360 == pytest.approx(180)
    for ratio in np.random.default_rng(1).uniform(0.1, 40, 50).tolist() + [1.0, 1.5, 2.0, 3.0, 16.0]:
        assert count_halvings(ratio) == round(math.log2(max(1.0, ratio)))


def test_picking_gives_the_random_numbers_of_choice():
    rng, expected = make_rng("values", 1), make_rng("values", 1)
    for values in [("a", "b", "c"), (-1, 1), (0.3, 0.58, 0.1), tuple(range(30))] * 20:
        assert rng.pick(values) == expected.choice(values)
    assert rng.random() == expected.random()


def test_tinting_is_multiplying():
    gray = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    for color in [(0, 128, 255), (1, 77, 201)]:
        for box in [(0, 0, 16, 16), (3, 5, 12, 16)]:
            size = (box[2] - box[0], box[3] - box[1])
            product = ImageChops.multiply(Image.new("RGB", size, color), gray.crop(box).convert("RGB"))
            assert tint(gray, box, color).tobytes() == product.tobytes()
    assert gray.mode == "L"
