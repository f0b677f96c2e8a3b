"""A house front drawn flat: colors, wall, roof, windows, doors, garages, shops."""

from functools import lru_cache
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from vpr_lib.city.exact_math import Generator
from vpr_lib.city.layout import STYLES, Building
from vpr_lib.city.pictures import Color, hsv_color, make_rng, make_surface_noise, scale_color, tint

SCALE = 16  # pixels a meter
SHOP_NAMES = ("CAFE", "BAKERY", "BOOKS", "PHARMACY", "TAILOR", "BAR", "NOODLES", "FLOWERS", "BANK", "HOTEL", "PIZZA",
              "SHOES", "OPTIC", "TOYS", "SALON", "MARKET", "DELI", "TEA", "MUSIC", "CYCLES", "PAPER", "GALLERY",
              "SUSHI", "GRILL", "LAUNDRY", "PHONES", "CLINIC", "STUDIO", "VINYL", "WINES")  # fmt: skip

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


class Paint(NamedTuple):
    """Colors of a house."""

    wall: Color
    trim: Color
    glass: Color
    roof: Color


class Front:
    """A house front being drawn on a picture of its bare wall (RGB)."""

    def __init__(self, building: Building, paint: Paint, picture: Image.Image) -> None:
        self.building, self.paint = building, paint
        self.draw = ImageDraw.Draw(picture)
        self.width, self.height = picture.size
        self.eaves = round(building.roof_height * SCALE)  # row where the roof begins
        self.floor_height = STYLES[building.style].floor_height * SCALE  # pixels
        floors = range(1, building.floors)  # above the ground floor
        self.floor_bases = [self.height - 0.6 * SCALE - floor * self.floor_height for floor in floors]  # rows
        self.panes: list[Box] = []  # windows drawn so far
        self.signs: list[Box] = []  # shop signs drawn so far


def pick_paint(building: Building, rng: Generator) -> Paint:
    """Colors that suit the district and the material."""
    hue = rng.pick(STYLES[building.style].hues) + rng.normal(0, 0.015)
    saturation, value = {
        "brick": (rng.uniform(0.35, 0.65), rng.uniform(0.38, 0.68)),
        "boards": (rng.uniform(0.06, 0.36), rng.uniform(0.55, 0.95)),
        "stucco": (rng.uniform(0.04, 0.32), rng.uniform(0.6, 0.97)),
        "concrete": (rng.uniform(0.02, 0.08), rng.uniform(0.45, 0.75)),
        "stone": (rng.uniform(0.08, 0.22), rng.uniform(0.55, 0.85)),
        "glass": (rng.uniform(0.1, 0.35), rng.uniform(0.25, 0.6)),
    }[building.wall]
    wall = hsv_color(hue, saturation, value)
    trim = hsv_color(hue, 0.06, 0.93) if rng.random() < 0.65 else scale_color(wall, 0.55)
    glass = hsv_color(0.58 + rng.normal(0, 0.03), rng.uniform(0.15, 0.4), rng.uniform(0.2, 0.42))
    roof = hsv_color(rng.pick((0.02, 0.06, 0.6)), rng.uniform(0.1, 0.45), rng.uniform(0.25, 0.5))
    return Paint(wall, trim, glass, roof)


def draw_wall(size: tuple[int, int], building: Building, paint: Paint, rng: Generator) -> Image.Image:
    """A bare wall (width, height in pixels) with its material's pattern, RGB."""
    width, height = size
    joints = Image.new("1", size)
    draw = ImageDraw.Draw(joints)
    if building.wall in ("brick", "boards"):
        for row in range(0, height, 5 if building.wall == "brick" else 4):
            draw.line((0, row, width, row), fill=1)
    elif building.wall in ("stone", "concrete"):
        step = round(SCALE * rng.uniform(0.6, 1.4))
        for row in range(0, height, step):
            draw.line((0, row, width, row), fill=1)
            for column in range((row // step % 2) * step, width, 2 * step):
                draw.line((column, row, column, row + step), fill=1)
    left, top = (int(offset) for offset in rng.integers(0, 180, 2))
    noise, box = make_surface_noise(), (left, top, left + width, top + height)
    picture = tint(noise, box, paint.wall)
    if building.wall not in ("stucco", "glass"):
        picture.paste(tint(noise, box, scale_color(paint.wall, 0.84)), mask=joints)
    return picture


def draw_roof(front: Front, rng: Generator) -> Image.Image | None:
    """Draw what is above the eaves; a mask ("L", 255 where the house is), None where the house fills the picture."""
    draw, paint, width, eaves = front.draw, front.paint, front.width, front.eaves
    roof = front.building.roof
    draw.rectangle((0, eaves, width, eaves + 5), fill=paint.trim)
    if roof in ("flat", "cornice"):
        draw.rectangle((0, 0, width, eaves), fill=scale_color(paint.wall, 0.92))
        draw.rectangle((0, 0, width, 3), fill=paint.trim)
        if roof == "cornice":
            for x in range(0, width, 10):
                draw.rectangle((x, eaves - 5, x + 4, eaves), fill=scale_color(paint.trim, 0.75))
        return None
    mask = Image.new("L", (width, front.height), 255)
    draw_mask = ImageDraw.Draw(mask)
    draw_mask.rectangle((0, 0, width, eaves - 1), fill=0)
    if roof == "gable":
        middle = width // 2
        outline = (0, eaves, middle, 0, width, eaves)
        draw.polygon(outline, fill=paint.wall)
        draw.line((0, eaves, middle, 1, width, eaves), fill=paint.roof, width=7)
        draw.ellipse((middle - 8, eaves // 2, middle + 8, eaves // 2 + 16), fill=paint.glass, outline=paint.trim)
    elif roof == "stepped":
        steps = [(i * width // 9, eaves * (4 - i) // 4, eaves * (3 - i) // 4) for i in range(4)]
        left = [point for x, low, high in steps for point in (x, low, x, high)]
        right = [point for x, low, high in reversed(steps) for point in (width - x, high, width - x, low)]
        outline = (*left, *right)
    else:
        outline = _draw_sloping_roof(front)
    draw_mask.polygon(outline, fill=255)
    if rng.random() < 0.6:  # a chimney
        x = int(rng.uniform(0.15, 0.8) * width)
        draw.rectangle((x, 0, x + 12, eaves), fill=scale_color(paint.roof, 0.8))
        draw_mask.rectangle((x, 0, x + 12, eaves), fill=255)
    return mask


def _draw_sloping_roof(front: Front) -> tuple[int, ...]:
    """A hip or mansard roof; its outline."""
    draw, paint, width, eaves = front.draw, front.paint, front.width, front.eaves
    mansard = front.building.roof == "mansard"
    inset = width // 12 if mansard else width // 3
    outline = (0, eaves, inset, 0, width - inset, 0, width, eaves)
    draw.polygon(outline, fill=paint.roof)
    for row in range(3, eaves, 6):
        draw.line((0, row, width, row), fill=scale_color(paint.roof, 0.85))
    if mansard:
        for x in range(width // 6, width - 10, max(28, width // 4)):
            draw.rectangle((x - 8, eaves // 3, x + 8, eaves - 3), fill=paint.trim)
            draw.rectangle((x - 5, eaves // 3 + 3, x + 5, eaves - 5), fill=paint.glass)
    return outline


def draw_windows(front: Front, rng: Generator, face: int) -> None:
    """Windows of all floors above the ground floor."""
    if front.building.wall == "glass":
        _draw_curtain_wall(front, rng)
        return
    draw, width = front.draw, front.width
    number = max(1, round((width - 0.5 * SCALE) / (rng.uniform(1.7, 3.2) * SCALE)))
    pitch = (width - 0.4 * SCALE) / number
    wide = min(pitch * rng.uniform(0.42, 0.72), 2.4 * SCALE)
    tall = front.floor_height * rng.uniform(0.45, 0.62)
    kind = rng.pick(("plain", "arch", "cross", "shutters", "lintel", "bay"))
    band = rng.random() < 0.5
    shutter = hsv_color(rng.random(), 0.5, 0.45)
    chance = int(make_rng("curtain", front.building.seed, face).integers(2**31))
    for base in front.floor_bases:
        if band:
            draw.rectangle((0, base + 1, width, base + 4), fill=front.paint.trim)
        bottom = round(base - 0.9 * SCALE)
        top = max(round(base - 0.9 * SCALE - tall), front.eaves + 4)
        for slot in range(number):
            middle = 0.2 * SCALE + (slot + 0.5) * pitch
            left, right = round(middle - wide / 2), round(middle + wide / 2)
            if bottom - top >= 6 and right - left >= 5:
                chance = (chance * 1103515245 + 12345) % 2**31  # a linear congruential generator: fast
                _draw_window(front, (left, top, right, bottom), kind, shutter, chance >> 16)


def _draw_window(front: Front, box: Box, kind: str, shutter: Color, chance: int) -> None:
    """One window: frame, glass that is lighter above, curtain, cross bars, sill; `chance` draws the curtain."""
    draw, paint = front.draw, front.paint
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if kind == "bay":
        draw.rectangle((left - 5, top - 6, right + 5, bottom + 10), fill=scale_color(paint.wall, 1.12))
        draw.rectangle((left - 5, bottom + 7, right + 5, bottom + 10), fill=scale_color(paint.wall, 0.7))
    if kind == "shutters":
        draw.rectangle((left - width // 2, top, right + width // 2, bottom), fill=shutter)
    if kind == "arch":
        draw.ellipse((left - 2, top - width // 2, right + 2, top + width // 2), fill=paint.trim)
        draw.ellipse((left, top - width // 2 + 2, right, top + width // 2), fill=paint.glass)
    draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill=paint.trim)
    draw.rectangle(box, fill=paint.glass)
    reflection = (left, top, right, top, right, (top + bottom) // 2, left, top + height // 4)
    draw.polygon(reflection, fill=scale_color(paint.glass, 1.5))
    if chance % 5 < 2:  # a curtain or a blind, drawn to some height
        color = hsv_color((chance % 97) / 97, 0.15, 0.55 + (chance % 7) / 20)
        draw.rectangle((left, top, right, top + height * (2 + chance % 6) // 8), fill=color)
    crossed = kind in ("cross", "arch", "shutters")
    if crossed:
        draw.line(((left + right) // 2, top, (left + right) // 2, bottom), fill=paint.trim)
    bar = top + height // 3 if crossed else (top + bottom) // 2
    draw.line((left, bar, right, bar), fill=paint.trim)
    if kind == "lintel":
        draw.rectangle((left - 4, top - 7, right + 4, top - 3), fill=paint.trim)
    draw.rectangle((left - 4, bottom + 2, right + 4, bottom + 4), fill=scale_color(paint.trim, 0.85))
    front.panes.append(box)


def _draw_curtain_wall(front: Front, rng: Generator) -> None:
    """The glass front of an office tower."""
    draw, width = front.draw, front.width
    pitch = rng.uniform(1.1, 2.6) * SCALE
    share = rng.uniform(0.55, 0.88)
    own_rng = make_rng("glass", front.building.seed)
    for base in front.floor_bases:
        top = round(base - front.floor_height * share)
        for slot, tone in enumerate(own_rng.uniform(0.75, 1.6, int(width / pitch) + 1)):
            box = (round(slot * pitch + 2), top, round((slot + 1) * pitch - 2), round(base - 2))
            if top > front.eaves and box[0] < width - 4:
                draw.rectangle(box, fill=scale_color(front.paint.glass, tone))
                front.panes.append(box)


def draw_ground_floor(front: Front, rng: Generator, shop: int) -> None:
    """A shop, or a door with windows or a garage where `shop` is -1."""
    draw, paint, width, base = front.draw, front.paint, front.width, front.height
    draw.rectangle((0, base - 8, width, base), fill=scale_color(paint.wall, 0.6))  # plinth
    if shop >= 0:
        _draw_shop(front, make_rng("shop", front.building.seed, shop))
        return
    slots = max(1, width // round(2.2 * SCALE))
    pitch = width / slots
    door_slot = int(rng.integers(slots))
    door_color = hsv_color(rng.random(), 0.55, rng.uniform(0.25, 0.7))
    garage = rng.random() < 0.35
    for slot in range(slots):
        middle = round((slot + 0.5) * pitch)
        if slot == door_slot:
            _draw_door(front, middle, door_color)
        elif garage and abs(slot - door_slot) == 1 and slots > 2:
            half = min(round(1.25 * SCALE), round(pitch * 0.46))
            top = base - round(2.2 * SCALE)
            draw.rectangle((middle - half, top, middle + half, base - 2), fill=hsv_color(rng.random(), 0.1, 0.8))
            for row in range(top, base - 2, 9):
                draw.line((middle - half, row, middle + half, row), fill=(90, 90, 90))
        else:
            half = round(0.55 * SCALE)
            box = (middle - half, base - round(2.3 * SCALE), middle + half, base - SCALE)
            _draw_window(front, box, "plain", paint.trim, int(rng.integers(2**15)))


def _draw_door(front: Front, middle: int, color: Color) -> None:
    """A door with a fanlight and a house number."""
    draw, paint, base = front.draw, front.paint, front.height
    left, top, right = middle - 9, base - round(2.2 * SCALE), middle + 9
    draw.rectangle((left - 4, top - 4, right + 4, base - 3), fill=paint.trim)
    draw.rectangle((left, top, right, base - 3), fill=color)
    draw.rectangle((left + 4, top + 4, right - 4, top + 16), fill=scale_color(paint.glass, 1.3))
    draw.rectangle((right + 8, top + 8, right + 13, top + 14), fill=(235, 235, 225))


@lru_cache(maxsize=1)
def _load_font() -> ImageFont.FreeTypeFont:
    """Pillow's own font."""
    return ImageFont.load_default(12)


def _draw_shop(front: Front, rng: Generator) -> None:
    """Shop windows under a sign, with or without an awning."""
    draw, width, base = front.draw, front.width, front.height
    top = base - round(front.floor_height - 0.5 * SCALE)
    frame_color = hsv_color(rng.random(), rng.uniform(0.2, 0.7), rng.uniform(0.2, 0.75))
    draw.rectangle((4, top, width - 4, base), fill=frame_color)
    sign_bottom = top + round(0.75 * SCALE)
    number = max(2, width // round(2.6 * SCALE))
    pitch = (width - 8) / number
    door_slot = int(rng.integers(number))
    for slot in range(number):
        low = base - 3 if slot == door_slot else base - 12
        left, right = round(4 + slot * pitch + 4), round(4 + (slot + 1) * pitch - 4)
        box = (left, sign_bottom + 3, right, low)
        draw.rectangle(box, fill=hsv_color(rng.random(), 0.25, rng.uniform(0.25, 0.5)))
        for _ in range(5):  # goods
            column = rng.integers(left, max(right - 8, left + 1))
            row = rng.integers(sign_bottom + 9, max(low - 8, sign_bottom + 10))
            goods = (column, row, column + rng.integers(3, 9), low)
            draw.rectangle(goods, fill=hsv_color(rng.random(), 0.6, rng.uniform(0.3, 0.8)))
        front.panes.append(box)
    sign_color = hsv_color(rng.random(), rng.uniform(0.3, 0.95), rng.uniform(0.25, 0.95))
    sign = (6, top + 2, width - 6, sign_bottom)
    draw.rectangle(sign, fill=sign_color)
    ink = (250, 245, 235) if sum(sign_color) < 400 else (25, 25, 30)
    center = (width // 2, (top + 2 + sign_bottom) // 2)
    draw.text(center, rng.pick(SHOP_NAMES), fill=ink, font=_load_font(), anchor="mm")
    if rng.random() < 0.45:  # a striped awning
        stripe = hsv_color(rng.random(), 0.6, 0.75)
        for x in range(4, width - 4, 9):
            color = stripe if (x // 9) % 2 else (238, 236, 230)
            draw.rectangle((x, sign_bottom, x + 8, sign_bottom + 14), fill=color)
    front.signs.append(sign)
