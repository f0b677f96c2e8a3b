"""What a house shows to the street: wall, windows, ground floor and roof, drawn flat, `SCALE` pixels a metre."""

import colorsys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

from vpr_lib.city.scene import STYLES, Building, make_rng

SCALE = 16
NAMES = ("CAFE", "BAKERY", "BOOKS", "PHARMACY", "TAILOR", "BAR", "NOODLES", "FLOWERS", "BANK", "HOTEL", "PIZZA",
         "SHOES", "OPTIC", "TOYS", "SALON", "MARKET", "DELI", "TEA", "MUSIC", "CYCLES", "PAPER",
         "GALLERY", "SUSHI", "GRILL",
         "LAUNDRY", "PHONES", "CLINIC", "STUDIO", "VINYL", "WINES")  # fmt: skip


def mix(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    """HSV, each 0 to 1 -> RGB bytes."""
    return tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1)))


def scale_colour(colour: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    """A darker or lighter colour."""
    return tuple(min(255, max(0, int(c * factor))) for c in colour)


@lru_cache(maxsize=1)
def make_grain() -> Image.Image:
    """Coarse and fine grey noise, 1280 x 1280 pixels RGB, for walls and roads; it repeats after 512."""
    rng = make_rng("grain")
    total = np.zeros((512, 512))
    for cells, weight in ((512, 10), (128, 12), (32, 12), (8, 10)):
        noise = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        total += weight * np.asarray(Image.fromarray(noise).resize((512, 512), Image.Resampling.BILINEAR))
    tile = (232 + total).clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.tile(tile, (3, 3))[:1280, :1280]).convert("RGB")


@dataclass(frozen=True)
class Paint:
    """Colours of a house."""

    wall: tuple[int, int, int]
    trim: tuple[int, int, int]
    glass: tuple[int, int, int]
    roof: tuple[int, int, int]


def pick_paint(building: Building, rng: np.random.Generator) -> Paint:
    """Colours that suit the district and the material."""
    hue = rng.choice(STYLES[building.style].hues) + rng.normal(0, 0.015)
    saturation, value = {
        "brick": (rng.uniform(0.35, 0.65), rng.uniform(0.38, 0.68)),
        "boards": (rng.uniform(0.06, 0.36), rng.uniform(0.55, 0.95)),
        "stucco": (rng.uniform(0.04, 0.32), rng.uniform(0.6, 0.97)),
        "concrete": (rng.uniform(0.02, 0.08), rng.uniform(0.45, 0.75)),
        "stone": (rng.uniform(0.08, 0.22), rng.uniform(0.55, 0.85)),
        "glass": (rng.uniform(0.1, 0.35), rng.uniform(0.25, 0.6)),
    }[building.wall]
    wall = mix(hue, saturation, value)
    light_trim = rng.random() < 0.65
    trim = mix(hue, 0.06, 0.93) if light_trim else scale_colour(wall, 0.55)
    glass = mix(0.58 + rng.normal(0, 0.03), rng.uniform(0.15, 0.4), rng.uniform(0.2, 0.42))
    roof = mix(rng.choice((0.02, 0.06, 0.6)), rng.uniform(0.1, 0.45), rng.uniform(0.25, 0.5))
    return Paint(wall, trim, glass, roof)


def draw_wall(size: tuple[int, int], building: Building, paint: Paint, rng: np.random.Generator) -> Image.Image:
    """The bare wall with its material's pattern, RGB."""
    picture = Image.new("RGB", size, paint.wall)
    draw = ImageDraw.Draw(picture)
    joint = scale_colour(paint.wall, 0.84)
    if building.wall in ("brick", "boards"):
        for y in range(0, size[1], 5 if building.wall == "brick" else 4):
            draw.line((0, y, size[0], y), fill=joint)
    elif building.wall in ("stone", "concrete"):
        step = round(SCALE * rng.uniform(0.6, 1.4))
        for y in range(0, size[1], step):
            draw.line((0, y, size[0], y), fill=joint)
            for x in range((y // step % 2) * step, size[0], 2 * step):
                draw.line((x, y, x, y + step), fill=joint)
    x, y = (int(v) for v in rng.integers(0, 180, 2))
    return ImageChops.multiply(picture, make_grain().crop((x, y, x + size[0], y + size[1])))


def draw_windows(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    eaves: int,
    building: Building,
    paint: Paint,
    rng: np.random.Generator,
    face: int,
) -> list[tuple[int, int, int, int]]:
    """All floors above the ground floor; the pixel boxes of the panes."""
    floor = STYLES[building.style].floor_height * SCALE
    curtain = int(make_rng("curtain", building.seed, face).integers(2**31))
    if building.wall == "glass":
        return draw_curtain_wall(draw, size, eaves, building, paint, rng)
    spacing = rng.uniform(1.7, 3.2) * SCALE
    number = max(1, round((size[0] - 0.5 * SCALE) / spacing))
    pitch = (size[0] - 0.4 * SCALE) / number
    wide, tall = min(pitch * rng.uniform(0.42, 0.72), 2.4 * SCALE), floor * rng.uniform(0.45, 0.62)
    kind = rng.choice(("plain", "arch", "cross", "shutters", "lintel", "bay"))
    band, shutter = rng.random() < 0.5, mix(rng.random(), 0.5, 0.45)
    panes = []
    for level in range(1, building.floors):
        base = size[1] - 0.6 * SCALE - level * floor
        if band:
            draw.rectangle((0, base + 1, size[0], base + 4), fill=paint.trim)
        for number_x in range(number):
            middle = 0.2 * SCALE + (number_x + 0.5) * pitch
            box = [
                round(v) for v in (middle - wide / 2, base - 0.9 * SCALE - tall, middle + wide / 2, base - 0.9 * SCALE)
            ]
            box[1] = max(box[1], eaves + 4)
            if box[3] - box[1] < 6 or box[2] - box[0] < 5:
                continue
            curtain = (curtain * 1103515245 + 12345) % 2**31
            draw_window(draw, tuple(box), str(kind), paint, shutter, curtain >> 16)
            panes.append(tuple(box))
    return panes


def draw_window(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    kind: str,
    paint: Paint,
    shutter: tuple[int, int, int],
    chance: int,
) -> None:
    """One window: frame, glass that is lighter above, curtain, cross bars, sill."""
    left, top, right, bottom = box
    if kind == "bay":
        draw.rectangle((left - 5, top - 6, right + 5, bottom + 10), fill=scale_colour(paint.wall, 1.12))
        draw.rectangle((left - 5, bottom + 7, right + 5, bottom + 10), fill=scale_colour(paint.wall, 0.7))
    if kind == "shutters":
        side = (right - left) // 2
        draw.rectangle((left - side, top, right + side, bottom), fill=shutter)
    if kind == "arch":
        draw.ellipse((left - 2, top - (right - left) // 2, right + 2, top + (right - left) // 2), fill=paint.trim)
        draw.ellipse((left, top - (right - left) // 2 + 2, right, top + (right - left) // 2), fill=paint.glass)
    draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill=paint.trim)
    draw.rectangle(box, fill=paint.glass)
    draw.polygon((left, top, right, top, right, (top + bottom) // 2, left, top + (bottom - top) // 4),
                 fill=scale_colour(paint.glass, 1.5))  # fmt: skip
    if chance % 5 < 2:  # a curtain or a blind, drawn to some height
        colour = mix((chance % 97) / 97, 0.15, 0.55 + (chance % 7) / 20)
        draw.rectangle((left, top, right, top + (bottom - top) * (2 + chance % 6) // 8), fill=colour)
    middle = (left + right) // 2
    if kind in ("cross", "arch", "shutters"):
        draw.line((middle, top, middle, bottom), fill=paint.trim, width=1)
        draw.line((left, top + (bottom - top) // 3, right, top + (bottom - top) // 3), fill=paint.trim)
    else:
        draw.line((left, (top + bottom) // 2, right, (top + bottom) // 2), fill=paint.trim, width=1)
    if kind == "lintel":
        draw.rectangle((left - 4, top - 7, right + 4, top - 3), fill=paint.trim)
    draw.rectangle((left - 4, bottom + 2, right + 4, bottom + 4), fill=scale_colour(paint.trim, 0.85))


def draw_curtain_wall(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    eaves: int,
    building: Building,
    paint: Paint,
    rng: np.random.Generator,
) -> list[tuple[int, int, int, int]]:
    """The glass front of an office tower."""
    floor, pitch = STYLES[building.style].floor_height * SCALE, rng.uniform(1.1, 2.6) * SCALE
    share, own = rng.uniform(0.55, 0.88), make_rng("glass", building.seed)
    panes = []
    for level in range(1, building.floors):
        base = size[1] - 0.6 * SCALE - level * floor
        tones = own.uniform(0.75, 1.6, int(size[0] / pitch) + 1)
        for number, tone in enumerate(tones):
            box = tuple(
                round(v) for v in (number * pitch + 2, base - floor * share, (number + 1) * pitch - 2, base - 2)
            )
            if box[1] > eaves and box[0] < size[0] - 4:
                draw.rectangle(box, fill=scale_colour(paint.glass, tone))
                panes.append(box)
    return panes


def draw_ground_floor(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    building: Building,
    paint: Paint,
    own: np.random.Generator,
    shop: int,
    panes: list[tuple[int, int, int, int]],
) -> list[tuple[int, int, int, int]]:
    """A shop front, or a door with windows or a garage; the signs' boxes. Its panes are added to `panes`."""
    style = STYLES[building.style]
    base, height = size[1], round((style.floor_height - 0.5) * SCALE)
    draw.rectangle((0, base - 8, size[0], base), fill=scale_colour(paint.wall, 0.6))  # plinth
    if shop >= 0:
        return draw_shop(draw, size, height, make_rng("shop", building.seed, shop), panes)
    door = round(1.1 * SCALE)
    slots = max(1, size[0] // round(2.2 * SCALE))
    pitch, door_at = size[0] / slots, int(own.integers(slots))
    colour, garage = mix(own.random(), 0.55, own.uniform(0.25, 0.7)), own.random() < 0.35
    for slot in range(slots):
        middle = round((slot + 0.5) * pitch)
        if slot == door_at:
            box = (middle - door // 2, base - round(2.2 * SCALE), middle + door // 2, base - 3)
            draw.rectangle((box[0] - 4, box[1] - 4, box[2] + 4, box[3]), fill=paint.trim)
            draw.rectangle(box, fill=colour)
            draw.rectangle((box[0] + 4, box[1] + 4, box[2] - 4, box[1] + 16), fill=scale_colour(paint.glass, 1.3))
            draw.rectangle((box[2] + 8, box[1] + 8, box[2] + 13, box[1] + 14), fill=(235, 235, 225))  # house number
        elif garage and abs(slot - door_at) == 1 and slots > 2:
            half = min(round(1.25 * SCALE), round(pitch * 0.46))
            box = (middle - half, base - round(2.2 * SCALE), middle + half, base - 2)
            draw.rectangle(box, fill=mix(own.random(), 0.1, 0.8))
            for y in range(box[1], box[3], 9):
                draw.line((box[0], y, box[2], y), fill=(90, 90, 90))
        else:
            box = (middle - round(0.55 * SCALE), base - round(2.3 * SCALE), middle + round(0.55 * SCALE), base - SCALE)
            draw_window(draw, box, "plain", paint, paint.trim, int(own.integers(2**15)))
            panes.append(box)
    return []


def draw_shop(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    height: int,
    own: np.random.Generator,
    panes: list[tuple[int, int, int, int]],
) -> list[tuple[int, int, int, int]]:
    """Shop windows under a sign, with or without an awning."""
    base, frame = size[1], mix(own.random(), own.uniform(0.2, 0.7), own.uniform(0.2, 0.75))
    draw.rectangle((4, base - height, size[0] - 4, base), fill=frame)
    sign_bottom = base - height + round(0.75 * SCALE)
    number = max(2, size[0] // round(2.6 * SCALE))
    pitch, door = (size[0] - 8) / number, int(own.integers(number))
    for slot in range(number):
        low = base - 3 if slot == door else base - 12
        box = (round(4 + slot * pitch + 4), sign_bottom + 3, round(4 + (slot + 1) * pitch - 4), low)
        draw.rectangle(box, fill=mix(own.random(), 0.25, own.uniform(0.25, 0.5)))
        for _ in range(5):  # goods
            x, y = own.integers(box[0], max(box[2] - 8, box[0] + 1)), own.integers(box[1] + 6, max(low - 8, box[1] + 7))
            draw.rectangle((x, y, x + own.integers(3, 9), low), fill=mix(own.random(), 0.6, own.uniform(0.3, 0.8)))
        panes.append(box)
    sign, text = mix(own.random(), own.uniform(0.3, 0.95), own.uniform(0.25, 0.95)), str(own.choice(NAMES))
    box = (6, base - height + 2, size[0] - 6, sign_bottom)
    draw.rectangle(box, fill=sign)
    ink = (250, 245, 235) if sum(sign) < 400 else (25, 25, 30)
    draw.text(((box[0] + box[2]) // 2, (box[1] + box[3]) // 2), text, fill=ink, font=get_font(), anchor="mm")
    if own.random() < 0.45:
        stripe, step = mix(own.random(), 0.6, 0.75), 9
        for x in range(4, size[0] - 4, step):
            colour = stripe if (x // step) % 2 else (238, 236, 230)
            draw.rectangle((x, sign_bottom, x + step - 1, sign_bottom + 14), fill=colour)
    return [box]


@lru_cache(maxsize=1)
def get_font() -> ImageFont.FreeTypeFont:
    """The letters on shop signs; Pillow brings them along."""
    return ImageFont.load_default(12)


def draw_roof(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    eaves: int,
    building: Building,
    paint: Paint,
    rng: np.random.Generator,
) -> Image.Image | None:
    """What stands above the eaves, and their moulding; a mask ("L") of house and roof unless they fill the picture."""
    width = size[0]
    draw.rectangle((0, eaves, width, eaves + 5), fill=paint.trim)
    if building.roof in ("flat", "cornice"):
        draw.rectangle((0, 0, width, eaves), fill=scale_colour(paint.wall, 0.92))
        draw.rectangle((0, 0, width, 3), fill=paint.trim)
        if building.roof == "cornice":
            for x in range(0, width, 10):
                draw.rectangle((x, eaves - 5, x + 4, eaves), fill=scale_colour(paint.trim, 0.75))
        return None
    mask = Image.new("L", size, 255)
    cut = ImageDraw.Draw(mask)
    cut.rectangle((0, 0, width, eaves - 1), fill=0)
    middle, inset = width // 2, width // 12 if building.roof == "mansard" else width // 3
    if building.roof == "gable":
        shape = (0, eaves, middle, 0, width, eaves)
        draw.polygon(shape, fill=paint.wall)
        draw.line((0, eaves, middle, 1, width, eaves), fill=paint.roof, width=7)
        draw.ellipse((middle - 8, eaves // 2, middle + 8, eaves // 2 + 16), fill=paint.glass, outline=paint.trim)
    elif building.roof == "stepped":
        steps = [(n * width // 9, eaves * (4 - n) // 4, eaves * (3 - n) // 4) for n in range(4)]
        left = [point for x, low, high in steps for point in (x, low, x, high)]
        right = [point for x, low, high in reversed(steps) for point in (width - x, high, width - x, low)]
        shape = (*left, *right)
    else:
        shape = (0, eaves, inset, 0, width - inset, 0, width, eaves)
        draw.polygon(shape, fill=paint.roof)
        for y in range(3, eaves, 6):
            draw.line((0, y, width, y), fill=scale_colour(paint.roof, 0.85))
        if building.roof == "mansard":
            for x in range(width // 6, width - 10, max(28, width // 4)):
                draw.rectangle((x - 8, eaves // 3, x + 8, eaves - 3), fill=paint.trim)
                draw.rectangle((x - 5, eaves // 3 + 3, x + 5, eaves - 5), fill=paint.glass)
    cut.polygon(shape, fill=255)
    if rng.random() < 0.6:  # a chimney
        x = int(rng.uniform(0.15, 0.8) * width)
        draw.rectangle((x, 0, x + 12, eaves), fill=scale_colour(paint.roof, 0.8))
        cut.rectangle((x, 0, x + 12, eaves), fill=255)
    return mask
