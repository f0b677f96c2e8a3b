"""Draws one photo, from far to near: sky, distance, ground, walls, street objects, then weather and lens.

Everything is drawn at twice the size and halved at the end, which smooths the edges.
"""

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops

from vpr_lib.city.canvas import NEAR_M, Camera, Canvas, Moment, turn_between
from vpr_lib.city.exact_math import cosine, round_off, tangent
from vpr_lib.city.layout import City, Street
from vpr_lib.city.pictures import Color, draw_rain, make_clouds, make_rng, make_surface_noise
from vpr_lib.city.street_objects import Occluder, draw_occluder, draw_street_objects
from vpr_lib.city.walls import draw_walls, find_visible_walls

MARKINGS_M = 70.0  # road markings farther away are not drawn
SIDEWALK: Color = (168, 163, 156)
ASPHALT: Color = (92, 92, 96)
CURB: Color = (196, 192, 184)
ROAD_PAINT: Color = (225, 222, 210)
WATER: Color = (62, 92, 108)
NOISE_SIZE = 700  # pixels of the sensor noise, height and width


def draw_photo(city: City, camera: Camera, moment: Moment, occluder: Occluder | None = None) -> Image.Image:
    """A photo of `camera.size` pixels, RGB, with `occluder` in front of all else; equal arguments give equal pixels."""
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


def draw_sky(canvas: Canvas) -> None:
    """A gradient, clouds, and the sun if it is in view."""
    camera, lighting = canvas.camera, canvas.lighting
    rng = make_rng("sky", canvas.moment.seed)
    size = (camera.size, max(1, round(camera.horizon * camera.size)))
    blend = np.linspace(0, 1, size[1])[:, None]
    blend = blend * np.sqrt(blend)
    gradient = 255 * (lighting.zenith * (1 - blend) + lighting.horizon * blend)
    sky = Image.fromarray(gradient.clip(0, 255).astype(np.uint8)[:, None]).resize(size, Image.Resampling.NEAREST)
    clouds = make_clouds(int(rng.integers(8)))
    left = ((camera.heading - camera.fov / 2) / 360 * 512 + rng.integers(512)) % 512
    strip = ImageChops.offset(clouds, -int(left), 0).crop((0, 20, int(camera.fov / 360 * 512) + 1, 128))
    cover = lighting.clouds * rng.uniform(0.6, 1.3)
    ramp = ((np.arange(256) / 255 - 0.75 + 0.6 * cover) * 2.6).clip(0, 0.9)
    mask = strip.point((255 * ramp).astype(int).tolist()).resize(size, Image.Resampling.BILINEAR)
    cloud_color = np.minimum(1.15 * lighting.horizon + 0.25 * lighting.sun, 1.0) * rng.uniform(0.85, 1.0)
    # Pasting a picture is faster than pasting a color.
    sky.paste(Image.new("RGB", size, tuple((255 * cloud_color).astype(int).tolist())), (0, 0), mask)
    canvas.image.paste(sky, (0, 0))
    if canvas.moment.light in ("day", "sunset", "backlight"):
        column, row = find_sun(canvas)
        if -camera.size < column < 2 * camera.size:
            sun_color = 255 * np.minimum(lighting.sun + 0.45, 1.0)
            canvas.add_glow(column, row, 0.5 * camera.size, sun_color, power=3)
            canvas.add_glow(column, row, 0.07 * camera.size, sun_color, power=1)


def find_sun(canvas: Canvas) -> tuple[float, float]:
    """Column and row of the sun; far outside the photo when it is behind the camera."""
    camera = canvas.camera
    turn = turn_between(canvas.moment.sun, camera.heading)
    if abs(turn) > 75:
        return -1e6, 0.0
    lift = camera.focal * tangent(canvas.lighting.elevation) / cosine(turn)
    return camera.size / 2 + camera.focal * tangent(turn), camera.horizon * camera.size - lift


def _draw_ridge(canvas: Canvas, ridge: np.ndarray, color: Color, distance_m: float) -> None:
    camera = canvas.camera
    view = camera.to_view(ridge)
    ahead = view[:, 1] > 50
    pixels = camera.to_pixels(view[ahead], ridge[ahead, 2])
    pixels = pixels[np.argsort(pixels[:, 0], kind="stable")]
    if len(pixels):
        floor = camera.horizon * camera.size + 2
        outline = np.vstack([[pixels[0, 0], floor], pixels, [pixels[-1, 0], floor]])
        fill = canvas.shade_color(color, canvas.lighting.ground, distance_m)
        canvas.draw.polygon(outline.ravel().tolist(), fill=fill)


def draw_distance(canvas: Canvas) -> None:
    """Hills and woods around the city, and the towers on the far shore."""
    _draw_ridge(canvas, canvas.city.hills, (84, 98, 84), 700)
    _draw_ridge(canvas, canvas.city.woods, (62, 84, 52), 300)
    camera, towers = canvas.camera, canvas.city.towers
    view = camera.to_view(towers)
    inside = np.abs(view[:, 0]) < view[:, 1] * tangent(camera.fov / 2) + 50
    light = canvas.lighting.shade_walls(canvas.moment.sun, np.array([0.0, 1.0]))
    for number in np.flatnonzero((view[:, 1] > 50) & inside):
        width, height = towers[number, 2:]
        scale = camera.focal / view[number, 1]
        column, base = camera.to_pixels(view[number], 0.0)
        left, top, right = column - width / 2 * scale, base - height * scale, column + width / 2 * scale
        tone = (60 + 37 * number % 110) * np.array([1, 0.97, 0.93])
        fill = canvas.shade_color(tone, light, 0.45 * view[number, 1])
        canvas.draw.rectangle((left, top, right, base), fill=fill)
        if canvas.moment.dark:  # lit windows
            rng = make_rng("tower lights", canvas.city.seed, number)
            windows = int(min(60, (right - left) * (base - top) / 30))
            points = rng.uniform((left, top), (right, base), (windows, 2))
            canvas.draw.point(points.ravel().tolist(), fill=(int(170 + 80 * canvas.lighting.glow), 205, 130))


def draw_ground(canvas: Canvas) -> None:
    """Sidewalks, roads with curbs and markings, the water; noise that lies on the ground."""
    camera, city = canvas.camera, canvas.city
    wet = canvas.moment.light == "rain"
    light = canvas.lighting.ground * 0.72 if wet else canvas.lighting.ground
    horizon = round(camera.horizon * camera.size)
    canvas.draw.rectangle((0, horizon, camera.size, camera.size), fill=canvas.shade_color(SIDEWALK, light, 25))
    if camera.y < 200:  # the water, and a low wall along its edge
        edge = [(-4000, city.shore, 0), (5000, city.shore, 0)]
        surface = [*edge, (5000, -3500, 0), (-4000, -3500, 0)]
        color = 0.55 * np.array(WATER) * light + 0.35 * 255 * canvas.lighting.horizon
        canvas.draw_polygon(surface, tuple(color.clip(0, 255).astype(int).tolist()))
        wall = [*edge, (5000, city.shore, 0.5), (-4000, city.shore, 0.5)]
        canvas.draw_polygon(wall, canvas.shade_color(CURB, light, 20))
    for curb_m, color in ((0.25, CURB), (0.0, ASPHALT)):
        fill = canvas.shade_color(color, light, 35)
        for street in city.streets:
            low, high = street.center - (street.road + curb_m), street.center + (street.road + curb_m)
            outline = ((street.start, low), (street.end, low), (street.end, high), (street.start, high))
            canvas.draw_polygon([(x, y, 0.0) if street.horizontal else (y, x, 0.0) for x, y in outline], fill)
    _draw_markings(canvas, canvas.shade_color(ROAD_PAINT, light, 20))
    lower = canvas.image.crop((0, horizon, camera.size, camera.size))
    noise = _project_ground_noise(camera, wet).resize(lower.size, Image.Resampling.NEAREST).convert("RGB")
    canvas.image.paste(ImageChops.multiply(lower, noise), (0, horizon))


def _draw_markings(canvas: Canvas, fill: Color) -> None:
    """Dashes along the middle of the roads near the camera, stripes at the crossings."""
    camera = canvas.camera
    for street in canvas.city.streets:
        along, across = (camera.x, camera.y) if street.horizontal else (camera.y, camera.x)
        if abs(across - street.center) > MARKINGS_M:
            continue
        crossings = [other for other in canvas.city.streets if other.horizontal != street.horizontal]
        markings = _list_markings(street, crossings, along)
        if len(markings):
            start, end, low, high = markings.T
            corners = [np.stack(corner, 1) for corner in ((start, low), (end, low), (end, high), (start, high))]
            spots = np.stack(corners, 1)  # (markings, 4, 2): along and across the street
            spots[..., 1] += street.center
            view = camera.to_view(spots if street.horizontal else spots[..., ::-1])
            for pixels in camera.to_pixels(view[(view[..., 1] > NEAR_M).all(1)], 0.0):
                canvas.draw.polygon(pixels.ravel().tolist(), fill=fill)


def _list_markings(street: Street, crossings: list[Street], along: float) -> np.ndarray:
    """(N, 4) start and end along the street, low and high across it, of the markings near `along`."""
    markings = []
    centers, roads = np.array([(other.center, other.road) for other in crossings]).T
    first = math.ceil(max(street.start, along - MARKINGS_M) / 6)
    dashes = 6 * np.arange(first, int(min(street.end, along + MARKINGS_M) / 6))
    for start in dashes[(np.abs(centers - dashes[:, None]) > roads + 4).all(1)].tolist():
        markings.append((start, start + 2.6, -0.08, 0.08))
    for other in crossings:
        if abs(other.center - along) < MARKINGS_M:
            stripes = np.arange(-street.road + 0.4, street.road - 0.5, 1.1)
            for side in (-1, 1):
                start = other.center + side * (other.road + 1.9) - 1.3
                markings += [(start, start + 2.6, low, low + 0.55) for low in stripes]
    return np.array(markings)


def _project_ground_noise(camera: Camera, wet: bool) -> Image.Image:
    """Noise that lies on the ground as seen by the camera, half the size of the photo below its horizon."""
    half = camera.size // 2
    rows = np.arange(round(camera.horizon * camera.size) // 2, half) + 0.5
    ahead = camera.height * camera.focal / 2 / np.maximum(rows - camera.horizon * half, 0.4)
    across = (np.arange(half) + 0.5 - half / 2) / (camera.focal / 2)
    # (rows, columns) each, in twelfths of a meter
    east = (np.outer(ahead, camera.forward[0] + across * camera.right[0]) + camera.x) * 12
    north = (np.outer(ahead, camera.forward[1] + across * camera.right[1]) + camera.y) * 12
    noise = _read_surface_noise().take((north.astype(np.int32) & 511) << 9 | east.astype(np.int32) & 511)
    noise *= (1 / (1 + (ahead / 18) ** 2))[:, None]  # it fades with the distance
    if wet:
        noise *= 0.6
    noise += 232
    return Image.fromarray(noise.astype(np.uint8))


@lru_cache(maxsize=1)
def _read_surface_noise() -> np.ndarray:
    """(512 * 512,) float64, the pixels of `make_surface_noise` that repeat, less their mean."""
    return np.asarray(make_surface_noise())[:512, :512].ravel() - 232.0


def draw_reflections(canvas: Canvas) -> None:
    """Mirror on the wet road what stands above it."""
    size, horizon = canvas.camera.size, round(canvas.camera.horizon * canvas.camera.size)
    bottom = min(size, 2 * horizon)
    above = canvas.image.crop((0, 2 * horizon - bottom, size, horizon))
    mirror = above.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    small = mirror.resize((size // 4, max(1, mirror.height // 16))).resize(mirror.size, Image.Resampling.BILINEAR)
    canvas.image.paste(Image.blend(canvas.image.crop((0, horizon, size, bottom)), small, 0.3), (0, horizon))


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
    gain = round_off(np.exp(rng.normal(0, 0.09) + rng.normal(0, 0.035, 3)))
    gamma = round_off(np.exp(rng.normal(0, 0.08)))
    curve = round_off((np.arange(256) / 255) ** gamma)
    table = 255 * (curve * gain[:, None]).clip(0, 1)
    image = ImageChops.multiply(image.point(table.astype(int).ravel().tolist()), _make_vignette(size))
    left, top = rng.integers(0, NOISE_SIZE - min(size, NOISE_SIZE - 1), 2)
    noise = _make_sensor_noise(9 if moment.light == "night" else 4)
    noise = noise.crop((left, top, left + size, top + size)) if size < NOISE_SIZE else noise.resize((size, size))
    return ImageChops.add(image, noise, 1.0, -128)


@lru_cache(maxsize=4)
def _make_vignette(size: int) -> Image.Image:
    """Factors for darker corners, 255 for 1."""
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    return Image.fromarray((255 * (1 - 0.13 * (rows**2 + columns**2))).astype(np.uint8)).convert("RGB")


@lru_cache(maxsize=4)
def _make_sensor_noise(strength: int) -> Image.Image:
    """Noise around 128."""
    noise = make_rng("noise", strength).normal(0, strength, (NOISE_SIZE, NOISE_SIZE, 3))
    return Image.fromarray((128 + noise).clip(0, 255).astype(np.uint8))
