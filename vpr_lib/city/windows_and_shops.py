"""Windows, doors, garages and shops of a house front, drawn flat."""

from functools import lru_cache

import numpy as np
from PIL import ImageFont

from vpr_lib.city.facade_parts import SCALE, Box, Front
from vpr_lib.city.seeding import make_rng
from vpr_lib.city.textures import Color, hsv_color, scale_color

SHOP_NAMES = ("CAFE", "BAKERY", "BOOKS", "PHARMACY", "TAILOR", "BAR", "NOODLES", "FLOWERS", "BANK", "HOTEL", "PIZZA",
              "SHOES", "OPTIC", "TOYS", "SALON", "MARKET", "DELI", "TEA", "MUSIC", "CYCLES", "PAPER", "GALLERY",
              "SUSHI", "GRILL", "LAUNDRY", "PHONES", "CLINIC", "STUDIO", "VINYL", "WINES")  # fmt: skip


def draw_windows(front: Front, rng: np.random.Generator, face: int) -> None:
    """Windows of all floors above the ground floor."""
    if front.building.wall == "glass":
        _draw_curtain_wall(front, rng)
        return
    draw = front.draw
    width = front.picture.width
    spacing = rng.uniform(1.7, 3.2) * SCALE
    number = max(1, round((width - 0.5 * SCALE) / spacing))
    pitch = (width - 0.4 * SCALE) / number
    wide = min(pitch * rng.uniform(0.42, 0.72), 2.4 * SCALE)
    tall = front.floor_height * rng.uniform(0.45, 0.62)
    kind = str(rng.choice(("plain", "arch", "cross", "shutters", "lintel", "bay")))
    band = rng.random() < 0.5
    shutter = hsv_color(rng.random(), 0.5, 0.45)
    chance = int(make_rng("curtain", front.building.seed, face).integers(2**31))
    for base in front.floor_bases():
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
    if kind in ("cross", "arch", "shutters"):
        middle, bar = (left + right) // 2, top + height // 3
        draw.line((middle, top, middle, bottom), fill=paint.trim, width=1)
    else:
        bar = (top + bottom) // 2
    draw.line((left, bar, right, bar), fill=paint.trim, width=1)
    if kind == "lintel":
        draw.rectangle((left - 4, top - 7, right + 4, top - 3), fill=paint.trim)
    draw.rectangle((left - 4, bottom + 2, right + 4, bottom + 4), fill=scale_color(paint.trim, 0.85))
    front.panes.append(box)


def _draw_curtain_wall(front: Front, rng: np.random.Generator) -> None:
    """The glass front of an office tower."""
    draw = front.draw
    width = front.picture.width
    pitch = rng.uniform(1.1, 2.6) * SCALE
    share = rng.uniform(0.55, 0.88)
    own_rng = make_rng("glass", front.building.seed)
    for base in front.floor_bases():
        top = round(base - front.floor_height * share)
        for slot, tone in enumerate(own_rng.uniform(0.75, 1.6, int(width / pitch) + 1)):
            box = (round(slot * pitch + 2), top, round((slot + 1) * pitch - 2), round(base - 2))
            if top > front.eaves and box[0] < width - 4:
                draw.rectangle(box, fill=scale_color(front.paint.glass, tone))
                front.panes.append(box)


def draw_ground_floor(front: Front, rng: np.random.Generator, shop: int) -> None:
    """A shop, or a door with windows or a garage where `shop` is -1."""
    draw, paint = front.draw, front.paint
    width, base = front.picture.size
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
    draw, paint, base = front.draw, front.paint, front.picture.height
    half = round(1.1 * SCALE) // 2
    left, top, right = middle - half, base - round(2.2 * SCALE), middle + half
    draw.rectangle((left - 4, top - 4, right + 4, base - 3), fill=paint.trim)
    draw.rectangle((left, top, right, base - 3), fill=color)
    draw.rectangle((left + 4, top + 4, right - 4, top + 16), fill=scale_color(paint.glass, 1.3))
    draw.rectangle((right + 8, top + 8, right + 13, top + 14), fill=(235, 235, 225))


def _draw_shop(front: Front, rng: np.random.Generator) -> None:
    """Shop windows under a sign, with or without an awning."""
    draw = front.draw
    width, base = front.picture.size
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
    draw.text(center, str(rng.choice(SHOP_NAMES)), fill=ink, font=_get_font(), anchor="mm")
    if rng.random() < 0.45:  # a striped awning
        stripe = hsv_color(rng.random(), 0.6, 0.75)
        for x in range(4, width - 4, 9):
            color = stripe if (x // 9) % 2 else (238, 236, 230)
            draw.rectangle((x, sign_bottom, x + 8, sign_bottom + 14), fill=color)
    front.signs.append(sign)


@lru_cache(maxsize=1)
def _get_font() -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(12)  # included in Pillow
