"""City, camera, moment -> photo. From far to near: sky, distance, ground, walls, things, then weather and lens.

Everything is drawn at twice the size and halved at the end, which smooths the edges.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from vpr_lib.city.camera import NEAR_M, Camera
from vpr_lib.city.facades import make_grain
from vpr_lib.city.light import LIGHTINGS, Lighting, Moment, season_of, shade, shade_ground
from vpr_lib.city.scene import City, make_rng
from vpr_lib.city.solids import Placed, Solid, make_box, make_scaffold, make_vehicle
from vpr_lib.city.sprites import draw_glow, draw_person, draw_rain, draw_tree, make_clouds
from vpr_lib.city.walls import VisibleWalls, draw_walls, find_visible, relight

NEARBY_M = 70.0  # cars, people and road markings farther away are not drawn
PAVEMENT, ASPHALT, KERB, PAINT, WATER = (168, 163, 156), (92, 92, 96), (196, 192, 184), (225, 222, 210), (62, 92, 108)


@dataclass(frozen=True)
class Occluder:
    """What stands in the way of a query: a truck, bus, crowd or scaffold, metres ahead of and right of the camera."""

    kind: str
    ahead: float
    right: float
    turn: float  # degrees from the camera's heading
    seed: int


@dataclass(frozen=True, eq=False)
class Frame:
    """A photo in the making."""

    city: City
    camera: Camera
    moment: Moment
    lighting: Lighting
    image: Image.Image
    draw: ImageDraw.ImageDraw

    def colour(self, base: Iterable[float], light: np.ndarray, distance_m: float) -> tuple[int, int, int]:
        """A colour under a light, veiled by the haze."""
        haze = 1 - math.exp(-distance_m / self.lighting.haze_m)
        value = np.asarray(base, float) * light * (1 - haze) + 255 * haze * self.lighting.horizon
        return tuple(value.clip(0, 255).astype(int).tolist())

    def polygon(self, corners: np.ndarray, fill: tuple[int, int, int]) -> None:
        """Fill a plane polygon (N, 3) in metres."""
        pixels = self.camera.project_polygon(corners)
        if pixels is not None:
            self.draw.polygon(pixels.ravel().tolist(), fill=fill)


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


# Sky, distance and ground


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
                paste_glow(frame, x, y, radius * camera.size, 255 * colour, power)


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
        if abs(across - street.centre) > NEARBY_M:
            continue
        crossings = [o for o in frame.city.streets if o.horizontal != street.horizontal]
        centres = np.array([o.centre for o in crossings])
        widths = np.array([o.road for o in crossings])
        quads = []
        first = math.ceil(max(street.start, along - NEARBY_M) / 6)
        for number in range(first, int(min(street.end, along + NEARBY_M) / 6)):
            if (np.abs(centres - 6 * number) > widths + 4).all():
                quads.append((6 * number, 6 * number + 2.6, -0.08, 0.08))
        for other in crossings:
            if abs(other.centre - along) < NEARBY_M:
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


# Things on the street


def draw_things(frame: Frame, visible: VisibleWalls) -> list[tuple[float, float, float]]:
    """Trees, lamps, cars, people and piers, the farthest first, hidden by the walls before them.

    Returns:
        Column, row and depth of the lamps' heads that can be seen.
    """
    camera, city = frame.camera, frame.city
    backdrop = frame.image.copy()
    shore = -city.streets[0].road - city.streets[0].walk
    piers = np.column_stack([city.piers[:, 0], np.full(len(city.piers), shore - 5)])
    rng = make_rng("cars", frame.moment.seed)
    taken = rng.random(len(city.parking)) < city.parking[:, 3]
    seeds = rng.integers(2**31, size=len(city.parking))
    walkers = place_walkers(frame)
    things = find_things(camera, visible, "pier", piers, 250, 40.0)
    things += find_things(camera, visible, "tree", city.trees, 150, 3.2)
    things += find_things(camera, visible, "lamp", city.lamps, 130, 1.7)
    things += find_things(camera, visible, "car", city.parking, NEARBY_M, 2.7, taken)
    things += find_things(camera, visible, "person", walkers, NEARBY_M, 0.5)
    lamps = []
    for depth, kind, row in sorted(things, reverse=True):
        if kind == "tree":
            x, y, height, variant = city.trees[row]
            sprite = draw_tree(int(variant), season_of(frame.moment.month))
            columns = paste_sprite(frame, sprite, (x, y), depth, height)
        elif kind == "person":
            x, y, variant, height = walkers[row]
            columns = paste_sprite(frame, draw_person(int(variant)), (x, y), depth, height)
        elif kind == "car":
            x, y, heading, _ = city.parking[row]
            model = ("sedan", "hatch", "van", "sedan", "hatch")[int(seeds[row]) % 5]
            car = make_vehicle(model, int(seeds[row]) % 64, frame.moment.dark)
            columns = draw_solid(frame, car, car.placed(Placed(x, y, heading)), depth)
        elif kind == "lamp":
            columns, head = draw_lamp(frame, city.lamps[row], depth)
            inside = 0 <= head[0] < camera.size
            if inside and visible.nearest[int(head[0])] * depth < 1:
                lamps.append((*head, depth))
        else:
            columns = draw_pier(frame, city.piers[row], depth)
        restore_hidden(frame, backdrop, visible, depth, columns)
    return lamps


def find_things(
    camera: Camera,
    visible: VisibleWalls,
    kind: str,
    spots: np.ndarray,
    reach: float,
    radius: float,
    there: np.ndarray | bool = True,
) -> list[tuple[float, str, int]]:
    """Depth, kind and row of the spots (N, >= 2) that are within reach, in the photo, and not behind walls.

    Args:
        camera: of the photo.
        visible: its walls.
        kind: what stands there.
        spots: metres east and north.
        reach: metres ahead.
        radius: metres, how far the things extend to the side.
        there: (N,) whether something stands there at all.
    """
    view = camera.to_view(spots)
    wide = np.abs(view[:, 0]) < view[:, 1] * math.tan(math.radians(camera.fov / 2)) + radius
    rows = np.flatnonzero((view[:, 1] > 0.8) & (view[:, 1] < reach) & wide & there)
    found = []
    scale = camera.focal / view[rows, 1]
    middle = camera.size / 2 + view[rows, 0] * scale
    lefts, rights = (middle - radius * scale).astype(int), (middle + radius * scale).astype(int) + 1
    for row, left, right in zip(rows.tolist(), lefts.tolist(), rights.tolist(), strict=True):
        depth = float(view[row, 1])
        before = visible.nearest[max(0, left) : right]
        if len(before) and before.min() * depth < 1:
            found.append((depth, kind, row))
    return found


def place_walkers(frame: Frame) -> np.ndarray:
    """(N, 4) x, y, variant, height of the people on the pavements near the camera."""
    rng = make_rng("walkers", frame.moment.seed)
    rows = []
    for street in frame.city.streets:
        along, across = (frame.camera.x, frame.camera.y) if street.horizontal else (frame.camera.y, frame.camera.x)
        if abs(across - street.centre) < NEARBY_M:
            for _ in range(rng.poisson(5 if frame.moment.light != "night" else 2)):
                side = rng.choice((-1, 1)) * (street.road + rng.uniform(0.6, street.walk - 0.3))
                rows.append(
                    [*street.point(along + rng.uniform(-60, 60), side), rng.integers(48), rng.uniform(1.55, 1.9)]
                )
    return np.array(rows).reshape(-1, 4)


def paste_sprite(
    frame: Frame, levels: list[Image.Image], spot: tuple[float, float], depth: float, height: float
) -> tuple[int, int]:
    """A picture (with its halvings) that stands upright on the ground and faces the camera; its columns."""
    camera = frame.camera
    (column, base), scale = camera.to_pixels(camera.to_view(np.array(spot)), 0.0), camera.focal / depth
    level = round(math.log2(max(1.0, levels[0].height / (height * scale))))
    sprite = levels[min(level, len(levels) - 1)]
    tall, wide = height * scale, height * scale * sprite.width / sprite.height
    left, top = column - wide / 2, base - tall
    x0, x1 = max(0, math.floor(left)), min(camera.size, math.ceil(left + wide))
    y0, y1 = max(0, math.floor(top)), min(camera.size, math.ceil(base))
    if x1 - x0 < 2 or y1 - y0 < 2:
        return 0, 0
    box = np.array([x0 - left, y0 - top, x1 - left, y1 - top]) * (sprite.width / wide)
    box = box.clip(0, [sprite.width, sprite.height] * 2)
    piece = sprite.resize((x1 - x0, y1 - y0), Image.Resampling.NEAREST, box=tuple(box))
    light = shade_ground(frame.lighting) * (1.0 if frame.lighting.glow < 1 else 1.3)
    frame.image.paste(relight(piece.convert("RGB"), light, frame.lighting, depth), (x0, y0), piece)
    return x0, x1


def draw_solid(
    frame: Frame, solid: Solid, points: np.ndarray, depth: float, two_sided: bool = False
) -> tuple[int, int]:
    """Draw the faces that are turned to the camera, in their order; the columns they cover.

    Args:
        frame: the photo.
        solid: its faces.
        points: (V, 3) their corners in the city, metres.
        depth: metres, for the haze.
        two_sided: draw faces that are turned away, too.
    """
    camera, light = frame.camera, shade_ground(frame.lighting)
    haze = 1 - math.exp(-depth / frame.lighting.haze_m)
    lights = np.maximum(light * solid.lift[:, None], solid.glow[:, None])
    fills = solid.colours * lights * (1 - haze) + 255 * haze * frame.lighting.horizon
    fills = fills.clip(0, 255).astype(int).tolist()
    polygons = np.split(points, solid.starts[1:])
    view = camera.to_view(points)
    if view[:, 1].min() > NEAR_M:
        polygons = np.split(camera.to_pixels(view, points[:, 2]), solid.starts[1:])
    else:
        polygons = [camera.project_polygon(p) for p in polygons]
    left, right = float(camera.size), 0.0
    for pixels, fill in zip(polygons, fills, strict=True):
        if pixels is None:
            continue
        corners = pixels.tolist()
        area = sum(x * corners[i - 1][1] - corners[i - 1][0] * y for i, (x, y) in enumerate(corners))
        if two_sided or area < 0:
            frame.draw.polygon([value for corner in corners for value in corner], fill=tuple(fill))
            columns = [x for x, _ in corners]
            left, right = min(left, *columns), max(right, *columns)
    return max(0, math.floor(left)), min(camera.size, math.ceil(right) + 1)


def draw_lamp(frame: Frame, lamp: np.ndarray, depth: float) -> tuple[tuple[int, int], tuple[float, float]]:
    """A pole with an arm over the road; its columns, and its head's column and row."""
    x, y, heading = lamp
    arm = np.array([math.sin(math.radians(heading)), math.cos(math.radians(heading))])
    fill = frame.colour((70, 74, 72), shade_ground(frame.lighting), depth)
    points = frame.camera.project(np.array([[x, y, 0], [x, y, 6.2], [*(np.array([x, y]) + 1.5 * arm), 6.5]]))
    if np.isnan(points).any():
        return (0, 0), (-1.0, -1.0)
    width = max(1, round(0.14 * frame.camera.focal / depth))
    frame.draw.line(points.clip(-4000, 4000).ravel().tolist(), fill=fill, width=width)
    hx, hy = points[2]
    size = 0.22 * frame.camera.focal / depth
    glow = (255, 236, 190) if frame.moment.dark else fill
    frame.draw.rectangle((hx - size, hy - size / 3, hx + size, hy + size / 2), fill=glow)
    columns = points[:, 0]
    return (max(0, int(columns.min() - size - 2)), min(frame.camera.size, int(columns.max() + size + 3))), (hx, hy)


def draw_pier(frame: Frame, pier: np.ndarray, depth: float) -> tuple[int, int]:
    """A wooden pier with a hut, in the water south of the first street."""
    x, length, width = pier
    shore = -frame.city.streets[0].road - frame.city.streets[0].walk
    middle = Placed(x, shore - length / 2, 180)
    wood = np.array([122.0, 104, 84])
    deck = Solid.of(make_box(middle, length, width, 0.1, 0.8, wood))
    columns = draw_solid(frame, deck, deck.points, depth)
    tint = np.array([[170.0, 80, 70], [210, 205, 190], [90, 120, 150]])[int(x) % 3]
    hut = Solid.of(make_box(Placed(x, shore - length + 6, 180), 8, width * 0.8, 0.8, 3.5 + width / 3, tint))
    other = draw_solid(frame, hut, hut.points, depth)
    return min(columns[0], other[0]), max(columns[1], other[1])


def restore_hidden(
    frame: Frame, backdrop: Image.Image, visible: VisibleWalls, depth: float, columns: tuple[int, int]
) -> None:
    """Put the walls back where they stand before a thing just drawn.

    What was drawn there before stood even farther away, so it was hidden, too.
    """
    left, right = columns
    hidden = np.flatnonzero(visible.nearest[left:right] * depth > 1.0)
    if len(hidden):
        for run in np.split(hidden, np.flatnonzero(np.diff(hidden) > 1) + 1):
            box = (left + int(run[0]), 0, left + int(run[-1]) + 1, frame.camera.size)
            frame.image.paste(backdrop.crop(box), box[:2])


# What stands in the way, glare and lens


def draw_occluder(frame: Frame, occluder: Occluder) -> None:
    """Something large before the camera."""
    camera = frame.camera
    spot = (camera.x, camera.y) + occluder.ahead * camera.forward + occluder.right * camera.right
    at = Placed(*spot, camera.heading + occluder.turn)
    if occluder.kind == "crowd":
        rng = make_rng("crowd", occluder.seed)
        spots = rng.uniform((-0.62, 1.4), (0.62, 7.0), (26, 2)) * np.array([1.0, 1.0])
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


def paste_glow(frame: Frame, x: float, y: float, radius: float, colour: np.ndarray, power: int = 2) -> None:
    """Add a soft light around a pixel."""
    size = max(2, round(2 * radius))
    glow = draw_glow(power).resize((size, size), Image.Resampling.BILINEAR)
    box = (round(x - radius), round(y - radius))
    region = frame.image.crop((*box, box[0] + size, box[1] + size))
    tint = Image.new("RGB", (size, size), tuple(int(c) for c in colour))
    frame.image.paste(ImageChops.add(region, ImageChops.multiply(tint, Image.merge("RGB", (glow,) * 3))), box)


def draw_glare(frame: Frame, lamps: list[tuple[float, float, float]]) -> None:
    """Light that spreads in the lens: lamps after dark, the low sun; streaks of rain."""
    size = frame.camera.size
    if frame.moment.dark:
        for x, y, depth in sorted(lamps, key=lambda lamp: lamp[2])[:8]:
            radius = min(0.3 * size, 2.6 * frame.camera.focal / depth)
            paste_glow(frame, x, y, radius, np.array([235, 180, 105]) * frame.lighting.glow)
            base = frame.camera.horizon * size + frame.camera.height * frame.camera.focal / depth
            if base < size * 1.2:
                paste_glow(frame, x, base, 1.4 * radius, np.array([70, 52, 30]) * frame.lighting.glow)
    if frame.moment.light == "backlight":
        x, y = find_sun(frame)
        if abs(x) < 3 * size:
            paste_glow(frame, x, y, 0.95 * size, np.array([190, 170, 130]), 1)
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
