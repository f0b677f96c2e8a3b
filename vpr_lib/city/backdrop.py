"""Behind everything: the sky, hills and towers far away, the ground."""

import math

import numpy as np
from PIL import Image, ImageChops

from vpr_lib.city.camera import NEAR_M, Camera
from vpr_lib.city.frame import Frame
from vpr_lib.city.fronts import make_grain
from vpr_lib.city.light import shade, shade_ground
from vpr_lib.city.scene import make_rng
from vpr_lib.city.sprites import make_clouds

MARKINGS_M = 70.0  # road markings farther away are not drawn
PAVEMENT, ASPHALT, KERB, PAINT, WATER = (168, 163, 156), (92, 92, 96), (196, 192, 184), (225, 222, 210), (62, 92, 108)


def draw_sky(frame: Frame) -> None:
    """A gradient, clouds that belong to the moment, the sun if it is in the photo."""
    camera, lighting, rng = frame.camera, frame.lighting, make_rng("sky", frame.moment.seed)
    rows = max(1, round(camera.horizon * camera.size))
    blend = (np.linspace(0, 1, rows) ** 1.5)[:, None]
    colours = 255 * (lighting.zenith * (1 - blend) + lighting.horizon * blend)
    sky = Image.fromarray(colours.clip(0, 255).astype(np.uint8)[:, None]).resize((camera.size, rows))
    clouds = make_clouds(int(rng.integers(8)))
    left = ((camera.heading - camera.fov / 2) / 360 * 512 + rng.integers(512)) % 512
    wide = camera.fov / 360 * 512
    strip = ImageChops.offset(clouds, -int(left), 0).crop((0, 20, int(wide) + 1, 128))
    cover = lighting.clouds * rng.uniform(0.6, 1.3)
    ramp = ((np.arange(256) / 255 - 0.75 + 0.6 * cover) * 2.6).clip(0, 0.9)
    mask = strip.point((255 * ramp).astype(int).tolist()).resize((camera.size, rows), Image.Resampling.BILINEAR)
    bright = np.minimum(1.15 * lighting.horizon + 0.25 * lighting.sun, 1.0) * rng.uniform(0.85, 1.0)
    sky.paste(tuple((255 * bright).astype(int).tolist()), (0, 0, camera.size, rows), mask)
    frame.image.paste(sky, (0, 0))
    if frame.moment.light in ("day", "sunset", "backlight"):
        x, y = find_sun(frame)
        if -camera.size < x < 2 * camera.size:
            colour = np.minimum(lighting.sun + 0.45, 1.0)
            for radius, power in ((0.5, 3), (0.07, 1)):
                frame.add_glow(x, y, radius * camera.size, 255 * colour, power)


def find_sun(frame: Frame) -> tuple[float, float]:
    """Column and row of the sun; far outside the photo when it is behind."""
    camera = frame.camera
    turn = math.radians((frame.moment.sun - camera.heading + 180) % 360 - 180)
    if abs(turn) > 1.3:
        return -1e6, 0.0
    lift = camera.focal * math.tan(math.radians(frame.lighting.elevation)) / math.cos(turn)
    return camera.size / 2 + camera.focal * math.tan(turn), camera.horizon * camera.size - lift


def draw_distance(frame: Frame) -> None:
    """Hills and woods around the city, and the towers on the far shore."""
    camera, city, light = frame.camera, frame.city, shade_ground(frame.lighting)
    for ring, base, haze_m in ((city.hills, (84, 98, 84), 700), (city.woods, (62, 84, 52), 300)):
        view = camera.to_view(ring)
        ahead = view[:, 1] > 50
        pixels = camera.to_pixels(view[ahead], ring[ahead, 2])
        pixels = pixels[np.argsort(pixels[:, 0])]
        if len(pixels):
            floor = camera.horizon * camera.size + 2
            outline = np.vstack([[pixels[0, 0], floor], pixels, [pixels[-1, 0], floor]])
            frame.draw.polygon(outline.ravel().tolist(), fill=frame.colour(base, light, haze_m))
    view = camera.to_view(city.towers)
    inside = np.abs(view[:, 0]) < view[:, 1] * math.tan(math.radians(camera.fov / 2)) + 50
    light = shade(frame.lighting, frame.moment.sun, np.array([0.0, 1.0]))
    for number in np.flatnonzero((view[:, 1] > 50) & inside):
        _, _, width, height = city.towers[number]
        scale = camera.focal / view[number, 1]
        column, base = camera.to_pixels(view[number], 0.0)
        box = (column - width / 2 * scale, base - height * scale, column + width / 2 * scale, base)
        tone = (60 + 37 * number % 110) * np.array([1, 0.97, 0.93])
        frame.draw.rectangle(box, fill=frame.colour(tone, light, 0.45 * view[number, 1]))
        if frame.moment.dark:
            draw_tower_lights(frame, box, number)


def draw_tower_lights(frame: Frame, box: tuple[float, float, float, float], number: int) -> None:
    """Lit windows of a distant tower; its pixels are given."""
    left, top, right, base = box
    rng = make_rng("tower lights", frame.city.seed, number)
    points = rng.uniform((left, top), (right, base), (int(min(60, (right - left) * (base - top) / 30)), 2))
    frame.draw.point(points.ravel().tolist(), fill=(int(170 + 80 * frame.lighting.glow), 205, 130))


def draw_ground(frame: Frame) -> None:
    """Pavement, roads with kerbs, crossings and dashes, the water; grain that lies on the ground."""
    camera, city = frame.camera, frame.city
    light, size = shade_ground(frame.lighting), frame.camera.size
    if frame.moment.light == "rain":
        light = light * 0.72
    horizon = round(camera.horizon * size)
    frame.draw.rectangle((0, horizon, size, size), fill=frame.colour(PAVEMENT, light, 25))
    if camera.y < 200:
        shore = -city.streets[0].road - city.streets[0].walk
        far = np.array([[-4000, shore, 0], [5000, shore, 0], [5000, -3500, 0], [-4000, -3500, 0]], float)
        water = 0.55 * np.array(WATER) * light + 0.35 * 255 * frame.lighting.horizon
        frame.polygon(far, tuple(water.clip(0, 255).astype(int).tolist()))
        rail = np.array([[-4000, shore, 0], [5000, shore, 0], [5000, shore, 0.5], [-4000, shore, 0.5]], float)
        frame.polygon(rail, frame.colour(KERB, light, 20))
    for extra, base in ((0.25, KERB), (0.0, ASPHALT)):
        fill = frame.colour(base, light, 35)
        for street in city.streets:
            half = street.road + extra
            spots = ((street.start, -half), (street.end, -half), (street.end, half), (street.start, half))
            frame.polygon(np.array([[*street.point(*spot), 0.0] for spot in spots]), fill)
    draw_markings(frame, frame.colour(PAINT, light, 20))
    grain = ground_grain(camera, frame.moment.light == "rain")
    lower = frame.image.crop((0, horizon, size, size))
    frame.image.paste(ImageChops.multiply(lower, grain.resize(lower.size, Image.Resampling.NEAREST)), (0, horizon))


def draw_markings(frame: Frame, fill: tuple[int, int, int]) -> None:
    """Dashes along the middle of the roads near the camera, stripes at the crossings."""
    camera = frame.camera
    for street in frame.city.streets:
        along, across = (camera.x, camera.y) if street.horizontal else (camera.y, camera.x)
        if abs(across - street.centre) > MARKINGS_M:
            continue
        crossings = [o for o in frame.city.streets if o.horizontal != street.horizontal]
        centres = np.array([o.centre for o in crossings])
        widths = np.array([o.road for o in crossings])
        quads = []
        first = math.ceil(max(street.start, along - MARKINGS_M) / 6)
        for number in range(first, int(min(street.end, along + MARKINGS_M) / 6)):
            if (np.abs(centres - 6 * number) > widths + 4).all():
                quads.append((6 * number, 6 * number + 2.6, -0.08, 0.08))
        for other in crossings:
            if abs(other.centre - along) < MARKINGS_M:
                for side in (-1, 1):
                    start = other.centre + side * (other.road + 1.9) - 1.3
                    stripes = np.arange(-street.road + 0.4, street.road - 0.5, 1.1)
                    quads += [(start, start + 2.6, a, a + 0.55) for a in stripes]
        if quads:
            a, b, low, high = np.array(quads).T
            spots = np.stack(
                [np.stack([a, low], 1), np.stack([b, low], 1), np.stack([b, high], 1), np.stack([a, high], 1)], 1
            )
            spots[..., 1] += street.centre
            view = camera.to_view(spots if street.horizontal else spots[..., ::-1])
            for corners in camera.to_pixels(view[(view[..., 1] > NEAR_M).all(1)], 0.0):
                frame.draw.polygon(corners.ravel().tolist(), fill=fill)


def ground_grain(camera: Camera, wet: bool) -> Image.Image:
    """Noise that lies on the ground as seen by the camera, half the size of the photo below its horizon."""
    half = camera.size // 2
    rows = np.arange(round(camera.horizon * camera.size) // 2, half) + 0.5
    ahead = camera.height * camera.focal / 2 / np.maximum(rows - camera.horizon * half, 0.4)
    across = (np.arange(half) + 0.5 - half / 2) / (camera.focal / 2)
    spots = ahead[:, None, None] * (camera.forward + across[None, :, None] * camera.right)
    cells = ((spots + (camera.x, camera.y)) * 12).astype(np.int32) & 511
    noise = np.asarray(make_grain())[..., 0][cells[..., 1], cells[..., 0]].astype(np.float32)
    fade = (1 / (1 + (ahead / 18) ** 2))[:, None]
    noise = 232 + (noise - 232) * fade * (0.6 if wet else 1.0)
    return Image.fromarray(noise.astype(np.uint8)).convert("RGB")


def draw_reflections(frame: Frame) -> None:
    """The wet road mirrors what stands above it."""
    size, horizon = frame.camera.size, round(frame.camera.horizon * frame.camera.size)
    below = (0, horizon, size, min(size, 2 * horizon))
    mirror = frame.image.crop((0, horizon - (below[3] - horizon), size, horizon)).transpose(
        Image.Transpose.FLIP_TOP_BOTTOM
    )
    small = mirror.resize((size // 4, max(1, mirror.height // 16))).resize(mirror.size, Image.Resampling.BILINEAR)
    frame.image.paste(Image.blend(frame.image.crop(below), small, 0.3), below[:2])
