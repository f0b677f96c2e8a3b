"""City, camera, moment -> photo. From far to near: sky, distance, ground, walls, things, then weather and lens.

Everything is drawn at twice the size and halved at the end, which smooths the edges.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from vpr_lib.city.backdrop import draw_distance, draw_ground, draw_reflections, draw_sky, find_sun
from vpr_lib.city.camera import Camera
from vpr_lib.city.frame import Frame
from vpr_lib.city.light import LIGHTINGS, Moment
from vpr_lib.city.scene import City, make_rng
from vpr_lib.city.solids import Placed, Solid, make_scaffold, make_vehicle
from vpr_lib.city.sprites import draw_person, draw_rain
from vpr_lib.city.things import draw_solid, draw_things, paste_sprite
from vpr_lib.city.walls import draw_walls, find_visible


@dataclass(frozen=True)
class Occluder:
    """What stands in the way of a query: a truck, bus, crowd or scaffold, metres ahead of and right of the camera."""

    kind: str
    ahead: float
    right: float
    turn: float  # degrees from the camera's heading
    seed: int


def draw_photo(city: City, camera: Camera, moment: Moment, occluder: Occluder | None = None) -> Image.Image:
    """Take a photo.

    Args:
        city: from `make_city`.
        camera: where it stands; `camera.size` pixels are drawn.
        moment: when.
        occluder: something in the way.

    Returns:
        RGB image; the same arguments give the same pixels.
    """
    large = replace(camera, size=2 * camera.size)
    image = Image.new("RGB", (large.size, large.size))
    frame = Frame(city, large, moment, LIGHTINGS[moment.light], image, ImageDraw.Draw(image))
    draw_sky(frame)
    draw_distance(frame)
    draw_ground(frame)
    visible = find_visible(city, large)
    draw_walls(image, city, large, moment, visible)
    if moment.light == "rain":
        draw_reflections(frame)
    lamps = draw_things(frame, visible)
    if occluder is not None:
        draw_occluder(frame, occluder)
    draw_glare(frame, lamps)
    return develop(image.reduce(2), frame)


def draw_occluder(frame: Frame, occluder: Occluder) -> None:
    """Something large before the camera."""
    camera = frame.camera
    spot = (camera.x, camera.y) + occluder.ahead * camera.forward + occluder.right * camera.right
    at = Placed(*spot, camera.heading + occluder.turn)
    if occluder.kind == "crowd":
        rng = make_rng("crowd", occluder.seed)
        spots = rng.uniform((-0.62, 1.4), (0.62, 7.0), (26, 2))
        spots[:, 0] = spots[:, 0] * spots[:, 1] + occluder.right
        for across, ahead in spots[np.argsort(-spots[:, 1])]:
            ground = (camera.x, camera.y) + ahead * camera.forward + across * camera.right
            paste_sprite(frame, draw_person(int(rng.integers(48))), tuple(ground), ahead, rng.uniform(1.9, 2.5))
    elif occluder.kind == "scaffold":
        scaffold = Solid.of(make_scaffold(at, 16.0, occluder.seed))
        draw_solid(frame, scaffold, scaffold.points, occluder.ahead, two_sided=True)
    else:
        vehicle = make_vehicle(occluder.kind, occluder.seed % 64, frame.moment.dark)
        draw_solid(frame, vehicle, vehicle.placed(at), occluder.ahead)


def occluder_share(camera: Camera, occluder: Occluder) -> float:
    """Share of the photo, 0 to 1, that an occluder covers."""
    small = replace(camera, size=96)
    masks = []
    for light in ("day", "night"):  # two empty photos that differ only where something is drawn
        image = Image.new("RGB", (96, 96), (255, 0, 255))
        frame = Frame(None, small, Moment(2000, 6, light, 0.0, 0), LIGHTINGS["day"], image, ImageDraw.Draw(image))
        draw_occluder(frame, occluder)
        masks.append((np.asarray(image) != (255, 0, 255)).any(-1))
    return float((masks[0] | masks[1]).mean())


def draw_glare(frame: Frame, lamps: list[tuple[float, float, float]]) -> None:
    """Light that spreads in the lens: lamps after dark, the low sun; streaks of rain."""
    size = frame.camera.size
    if frame.moment.dark:
        for x, y, depth in sorted(lamps, key=lambda lamp: lamp[2])[:8]:
            radius = min(0.3 * size, 2.6 * frame.camera.focal / depth)
            frame.add_glow(x, y, radius, np.array([235, 180, 105]) * frame.lighting.glow)
            base = frame.camera.horizon * size + frame.camera.height * frame.camera.focal / depth
            if base < size * 1.2:
                frame.add_glow(x, base, 1.4 * radius, np.array([70, 52, 30]) * frame.lighting.glow)
    if frame.moment.light == "backlight":
        x, y = find_sun(frame)
        if abs(x) < 3 * size:
            frame.add_glow(x, y, 0.95 * size, np.array([190, 170, 130]), 1)
    if frame.moment.light == "rain":
        streaks = draw_rain(frame.moment.seed % 8).resize((size, size))
        frame.image.paste((205, 210, 215), (0, 0, size, size), streaks)


@lru_cache(maxsize=4)
def make_vignette(size: int) -> Image.Image:
    """Darker corners."""
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    shade_ = 255 * (1 - 0.13 * (rows**2 + columns**2))
    return Image.fromarray(shade_.clip(0, 255).astype(np.uint8)).convert("RGB")


@lru_cache(maxsize=4)
def make_noise(strength: int) -> Image.Image:
    """Sensor noise around 128, 700 x 700 pixels."""
    rng = make_rng("noise", strength)
    return Image.fromarray((128 + rng.normal(0, strength, (700, 700, 3))).clip(0, 255).astype(np.uint8))


def develop(image: Image.Image, frame: Frame) -> Image.Image:
    """Exposure, white balance and contrast of the camera, vignette, noise."""
    rng, size = make_rng("lens", frame.moment.seed), image.width
    gain = np.exp(rng.normal(0, 0.09)) * np.exp(rng.normal(0, 0.035, 3))
    gamma = np.exp(rng.normal(0, 0.08))
    table = 255 * ((np.arange(256) / 255) ** gamma * gain[:, None]).clip(0, 1)
    image = ImageChops.multiply(image.point(table.astype(int).ravel().tolist()), make_vignette(size))
    x, y = rng.integers(0, 700 - min(size, 699), 2)
    noise = make_noise(9 if frame.moment.light == "night" else 4)
    noise = noise.crop((x, y, x + size, y + size)) if size < 700 else noise.resize((size, size))
    return ImageChops.add(image, noise, 1.0, -128)
