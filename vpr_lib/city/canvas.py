"""The photo being drawn: the camera that projects it, the moment it is taken, its light."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from vpr_lib.city.exact_math import cosine, round_off, sine, tangent
from vpr_lib.city.layout import City
from vpr_lib.city.pictures import Color, count_halvings, make_glow, tint

NEAR_M = 0.25  # nearest depth that is drawn
Point = tuple[float, float, float]  # meters east, north, up


@dataclass(frozen=True)
class Camera:
    """A level camera; as with a shifted lens, the horizon may lie off the center while verticals stay vertical."""

    x: float  # meters east
    y: float  # meters north
    heading: float  # degrees clockwise from north
    height: float = 2.4  # meters above the road
    fov: float = 72.0  # horizontal field of view, degrees
    horizon: float = 0.58  # row of the horizon as a share of the photo's height
    size: int = 320  # pixels, height and width

    @cached_property
    def focal(self) -> float:
        """Focal length in pixels."""
        return self.size / 2 / tangent(self.fov / 2)

    @cached_property
    def forward(self) -> np.ndarray:
        """(2,) unit vector east, north."""
        return np.array([sine(self.heading), cosine(self.heading)])

    @cached_property
    def right(self) -> np.ndarray:
        """(2,) unit vector to the right of the photo."""
        return np.array([cosine(self.heading), -sine(self.heading)])

    def to_view(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) meters east and north -> (..., 2) meters to the right and ahead."""
        east, north = points[..., 0] - self.x, points[..., 1] - self.y
        view = np.empty((*east.shape, 2))
        view[..., 0] = east * self.right[0] + north * self.right[1]
        view[..., 1] = east * self.forward[0] + north * self.forward[1]
        return view

    def to_pixels(self, view: np.ndarray, up: np.ndarray | float) -> np.ndarray:
        """Right and ahead (..., 2), up (...), meters -> column and row (..., 2); ahead must be positive."""
        scale = self.focal / view[..., 1]
        pixels = np.empty(view.shape)
        pixels[..., 0] = self.size / 2 + view[..., 0] * scale
        pixels[..., 1] = self.horizon * self.size + (self.height - up) * scale
        return pixels

    def project_polygon(self, points: Iterable[Point]) -> list[tuple[float, float]]:
        """Columns and rows of the part of a plane polygon that is ahead; [] if there is none."""
        # Without NumPy: for a few corners that is faster.
        (right_x, right_y), (ahead_x, ahead_y) = self.right.tolist(), self.forward.tolist()
        corners = []
        for x, y, up in points:
            east, north = x - self.x, y - self.y
            corners.append((east * right_x + north * right_y, east * ahead_x + north * ahead_y, up))
        pixels = []
        for right, ahead, up in _clip_near(corners):
            scale = self.focal / ahead
            pixels.append((self.size / 2 + right * scale, self.horizon * self.size + (self.height - up) * scale))
        return pixels if len(pixels) >= 3 else []


def _clip_near(corners: list[Point]) -> list[Point]:
    """The part of a polygon (right, ahead, up) that lies at least `NEAR_M` ahead.

    Source: Sutherland and Hodgman, Reentrant polygon clipping (1974), for one plane.
    """
    kept = []
    for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
        if start[1] >= NEAR_M:
            kept.append(start)
        if (start[1] >= NEAR_M) != (end[1] >= NEAR_M):
            depth, step = NEAR_M - start[1], end[1] - start[1]
            kept.append(tuple(low + (high - low) * depth / step for low, high in zip(start, end, strict=True)))
    return kept


def turn_between(heading: float, other: float) -> float:
    """Degrees from the `other` heading to this one, -180 to 180, clockwise."""
    return (heading - other + 180) % 360 - 180


@dataclass(frozen=True)
class Moment:
    """When a photo is taken."""

    year: int  # changes signs and shops
    month: int  # 1 to 12, changes leaves
    light: str  # key of `LIGHTINGS`
    sun: float  # heading the sun shines from, degrees
    seed: int  # of cars, people, clouds, lit windows and sensor noise

    @property
    def dark(self) -> bool:
        """Whether lamps and windows are lit."""
        return self.light in ("night", "sunset")

    @property
    def season(self) -> str:
        """winter, spring, summer or autumn."""
        return ("winter", "spring", "summer", "autumn")[self.month % 12 // 3]


@dataclass(frozen=True, eq=False)
class Lighting:
    """Colors of a light, RGB from 0 to 1 (the sensor clips what exceeds 1)."""

    ambient: np.ndarray
    sun: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray  # of the sky, and of the haze
    elevation: float  # of the sun, degrees
    haze_m: float  # distance at which haze takes 63% of a color
    clouds: float  # share of the sky
    glow: float  # strength of lamps and windows

    @cached_property
    def ground(self) -> np.ndarray:
        """(3,) RGB factor of what lies flat."""
        return self.ambient + 0.8 * sine(self.elevation) * self.sun

    def shade_walls(self, sun_heading: float, normals: np.ndarray) -> np.ndarray:
        """(..., 2) horizontal unit normals of walls -> (..., 3) RGB factors."""
        toward_sun = normals[..., 0] * sine(sun_heading) + normals[..., 1] * cosine(sun_heading)
        return self.ambient + np.maximum(toward_sun * cosine(self.elevation), 0)[..., None] * self.sun


# Ambient, sun, zenith, horizon; elevation, haze, clouds, glow; see `Lighting`.
_VALUES = {
    "day": (((0.6, 0.63, 0.7), (0.62, 0.56, 0.46), (0.28, 0.48, 0.82), (0.74, 0.83, 0.93)), 42, 900, 0.35, 0),
    "overcast": (((0.76, 0.78, 0.8), (0.05, 0.05, 0.05), (0.62, 0.65, 0.7), (0.8, 0.82, 0.84)), 50, 500, 0.95, 0),
    "sunset": (((0.4, 0.33, 0.36), (0.62, 0.32, 0.12), (0.25, 0.28, 0.5), (0.98, 0.6, 0.35)), 9, 600, 0.45, 0.5),
    "night": (((0.3, 0.26, 0.25), (0.04, 0.04, 0.05), (0.015, 0.02, 0.05), (0.1, 0.09, 0.12)), 50, 700, 0.3, 1),
    "backlight": (((0.36, 0.36, 0.38), (0.75, 0.62, 0.42), (0.5, 0.6, 0.78), (1.05, 0.96, 0.8)), 14, 260, 0.2, 0),
    "rain": (((0.5, 0.52, 0.56), (0, 0, 0), (0.42, 0.45, 0.5), (0.62, 0.65, 0.68)), 50, 190, 1.0, 0.15),
}
LIGHTINGS = {light: Lighting(*np.array(colors), *numbers) for light, (colors, *numbers) in _VALUES.items()}


class Canvas:
    """A photo being drawn: its city (None where only single objects are drawn), camera and moment."""

    def __init__(self, city: City | None, camera: Camera, moment: Moment, fill: Color = (0, 0, 0)) -> None:
        self.city, self.camera, self.moment = city, camera, moment
        self.lighting = LIGHTINGS[moment.light]
        self.image = Image.new("RGB", (camera.size, camera.size), fill)
        self.draw = ImageDraw.Draw(self.image)

    def shade_colors(self, colors: np.ndarray, light: np.ndarray, distance_m: float) -> np.ndarray:
        """(..., 3) colors under a light, blended with the haze at a distance; int, 0 to 255."""
        haze = self._measure_haze(distance_m)
        shaded = colors * light * (1 - haze) + 255 * haze * self.lighting.horizon
        return shaded.clip(0, 255).astype(int)

    def shade_color(self, color: Iterable[float], light: np.ndarray, distance_m: float) -> Color:
        """One color, see `shade_colors`; without NumPy, which is slower for single numbers."""
        haze = self._measure_haze(distance_m)
        parts = zip(color, light.tolist(), self.lighting.horizon.tolist(), strict=True)
        shaded = [part * factor * (1 - haze) + 255 * haze * sky for part, factor, sky in parts]
        return tuple(int(min(max(part, 0), 255)) for part in shaded)

    def shade_picture(self, picture: Image.Image, light: np.ndarray, distance_m: float) -> Image.Image:
        """An RGB picture, see `shade_colors`."""
        haze = self._measure_haze(distance_m)
        red, green, blue = (light * (1 - haze)).tolist()
        haze_red, haze_green, haze_blue = (255 * haze * self.lighting.horizon).tolist()
        return picture.convert("RGB", (red, 0, 0, haze_red, 0, green, 0, haze_green, 0, 0, blue, haze_blue))

    def _measure_haze(self, distance_m: float) -> float:
        """Share of a color, 0 to 1, that the haze replaces."""
        return 1 - round_off(math.exp(-distance_m / self.lighting.haze_m))

    def draw_polygon(self, corners: Iterable[Point], fill: Color) -> None:
        """Fill a plane polygon."""
        if pixels := self.camera.project_polygon(corners):
            self.draw.polygon(pixels, fill=fill)

    def add_glow(self, column: float, row: float, radius: float, color: np.ndarray, power: int = 2) -> None:
        """Add a soft light around a pixel; the color is RGB, 0 to 255."""
        size = max(2, round(2 * radius))
        left, top = round(column - radius), round(row - radius)
        x0, y0 = max(0, left), max(0, top)
        x1, y1 = min(self.camera.size, left + size), min(self.camera.size, top + size)
        if x0 < x1 and y0 < y1:
            box = (x0 - left, y0 - top, x1 - left, y1 - top)
            light = tint(make_glow(size, power), box, tuple(int(part) for part in color))
            self.image.paste(ImageChops.add(self.image.crop((x0, y0, x1, y1)), light), (x0, y0))

    def paste_sprite(self, levels: list[Image.Image], foot: np.ndarray, depth: float, height: float) -> tuple[int, int]:
        """Paste an upright picture (RGBA pyramid; foot, depth, height in meters); first and last column covered."""
        scale = self.camera.focal / depth  # pixels a meter
        column, base = self.camera.to_pixels(self.camera.to_view(foot), 0.0)
        level = count_halvings(levels[0].height / (height * scale))
        sprite = levels[min(level, len(levels) - 1)]
        tall, wide = height * scale, height * scale * sprite.width / sprite.height
        left, top = column - wide / 2, base - tall
        x0, x1 = max(0, math.floor(left)), min(self.camera.size, math.ceil(left + wide))
        y0, y1 = max(0, math.floor(top)), min(self.camera.size, math.ceil(base))
        if x1 - x0 < 2 or y1 - y0 < 2:
            return 0, 0
        box = np.array([x0 - left, y0 - top, x1 - left, y1 - top]) * (sprite.width / wide)
        box = box.clip(0, [sprite.width, sprite.height] * 2)
        piece = sprite.resize((x1 - x0, y1 - y0), Image.Resampling.NEAREST, box=tuple(box))
        light = self.lighting.ground * (1.0 if self.lighting.glow < 1 else 1.3)
        self.image.paste(self.shade_picture(piece.convert("RGB"), light, depth), (x0, y0), piece)
        return x0, x1
