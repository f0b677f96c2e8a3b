"""Draws one photo, from far to near: sky, distance, ground, walls, street objects, then weather and lens.

Everything is drawn at twice the size and halved at the end, which smooths the edges.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops

from vpr_lib.city.background import draw_distance, draw_ground, draw_reflections, draw_sky, find_sun
from vpr_lib.city.canvas import Camera, Canvas, Moment
from vpr_lib.city.layout import City
from vpr_lib.city.sprites_and_meshes import draw_rain
from vpr_lib.city.street_objects import Occluder, draw_occluder, draw_street_objects
from vpr_lib.city.textures import make_rng
from vpr_lib.city.walls import draw_walls, find_visible_walls

NOISE_SIZE = 700  # pixels of the sensor noise, height and width


def draw_photo(city: City, camera: Camera, moment: Moment, occluder: Occluder | None = None) -> Image.Image:
    """A photo of `camera.size` pixels, RGB, with `occluder` before all else; equal arguments give equal pixels."""
    canvas = Canvas(city, replace(camera, size=2 * camera.size), moment)
    draw_sky(canvas)
    draw_distance(canvas)
    draw_ground(canvas)
    visible = find_visible_walls(city, canvas.camera)
    draw_walls(canvas, visible)
    if moment.light == "rain":
        draw_reflections(canvas)
    lamp_heads = draw_street_objects(canvas, visible)
    if occluder is not None:
        draw_occluder(canvas, occluder)
    _draw_glare(canvas, lamp_heads)
    return apply_lens(canvas.image.reduce(2), moment)


def _draw_glare(canvas: Canvas, lamp_heads: list[tuple[float, float, float]]) -> None:
    """Light of lamps and of the low sun that spreads in the lens; streaks of rain."""
    camera, size = canvas.camera, canvas.camera.size
    light, glow = canvas.moment.light, canvas.lighting.glow
    if canvas.moment.dark:
        for column, row, depth in sorted(lamp_heads, key=lambda head: head[2])[:8]:
            radius = min(0.3 * size, 2.6 * camera.focal / depth)
            canvas.add_glow(column, row, radius, np.array([235, 180, 105]) * glow)
            base = camera.horizon * size + camera.height * camera.focal / depth
            if base < size * 1.2:
                canvas.add_glow(column, base, 1.4 * radius, np.array([70, 52, 30]) * glow)
    if light == "backlight":
        column, row = find_sun(canvas)
        if abs(column) < 3 * size:
            canvas.add_glow(column, row, 0.95 * size, np.array([190, 170, 130]), power=1)
    if light == "rain":
        streaks = draw_rain(canvas.moment.seed % 8).resize((size, size))
        canvas.image.paste((205, 210, 215), (0, 0, size, size), streaks)


def apply_lens(image: Image.Image, moment: Moment) -> Image.Image:
    """Exposure, white balance and contrast of the camera, vignette, sensor noise."""
    rng, size = make_rng("lens", moment.seed), image.width
    gain = np.exp(rng.normal(0, 0.09)) * np.exp(rng.normal(0, 0.035, 3))
    gamma = np.exp(rng.normal(0, 0.08))
    table = 255 * ((np.arange(256) / 255) ** gamma * gain[:, None]).clip(0, 1)
    image = ImageChops.multiply(image.point(table.astype(int).ravel().tolist()), _make_vignette(size))
    left, top = rng.integers(0, NOISE_SIZE - min(size, NOISE_SIZE - 1), 2)
    noise = _make_sensor_noise(9 if moment.light == "night" else 4)
    noise = noise.crop((left, top, left + size, top + size)) if size < NOISE_SIZE else noise.resize((size, size))
    return ImageChops.add(image, noise, 1.0, -128)


@lru_cache(maxsize=4)
def _make_vignette(size: int) -> Image.Image:
    """Factors for darker corners, 255 for 1."""
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    factors = 255 * (1 - 0.13 * (rows**2 + columns**2))
    return Image.fromarray(factors.clip(0, 255).astype(np.uint8)).convert("RGB")


@lru_cache(maxsize=4)
def _make_sensor_noise(strength: int) -> Image.Image:
    """Noise around 128."""
    noise = make_rng("noise", strength).normal(0, strength, (NOISE_SIZE, NOISE_SIZE, 3))
    return Image.fromarray((128 + noise).clip(0, 255).astype(np.uint8))
