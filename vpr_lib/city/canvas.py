"""The photo being drawn, with what every drawing function needs to know about it."""

import math
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from vpr_lib.city.camera import Camera
from vpr_lib.city.layout import City
from vpr_lib.city.light import LIGHTINGS, Moment
from vpr_lib.city.textures import Color, make_glow


class Canvas:
    """A photo being drawn: its city (None where only single objects are drawn), camera and moment."""

    def __init__(self, city: City | None, camera: Camera, moment: Moment, fill: Color = (0, 0, 0)) -> None:
        self.city = city
        self.camera = camera
        self.moment = moment
        self.lighting = LIGHTINGS[moment.light]
        self.image = Image.new("RGB", (camera.size, camera.size), fill)
        self.draw = ImageDraw.Draw(self.image)

    def shade_colors(self, colors: np.ndarray, light: np.ndarray, distance_m: float) -> np.ndarray:
        """(..., 3) colors under a light, blended with the haze at a distance; int, 0 to 255."""
        haze = self._measure_haze(distance_m)
        shaded = colors * light * (1 - haze) + 255 * haze * self.lighting.horizon
        return shaded.clip(0, 255).astype(int)

    def shade_color(self, color: Iterable[float], light: np.ndarray, distance_m: float) -> Color:
        """One color, see `shade_colors`."""
        return tuple(self.shade_colors(np.asarray(color, float), light, distance_m).tolist())

    def shade_picture(self, picture: Image.Image, light: np.ndarray, distance_m: float) -> Image.Image:
        """An RGB picture, see `shade_colors`."""
        haze = self._measure_haze(distance_m)
        red, green, blue = (light * (1 - haze)).tolist()
        haze_red, haze_green, haze_blue = (255 * haze * self.lighting.horizon).tolist()
        return picture.convert("RGB", (red, 0, 0, haze_red, 0, green, 0, haze_green, 0, 0, blue, haze_blue))

    def _measure_haze(self, distance_m: float) -> float:
        """Share of a color, 0 to 1, that the haze replaces."""
        return 1 - math.exp(-distance_m / self.lighting.haze_m)

    def draw_polygon(self, corners: np.ndarray, fill: Color) -> None:
        """Fill a plane polygon (N, 3) in metres."""
        pixels = self.camera.project_polygon(corners)
        if pixels is not None:
            self.draw.polygon(pixels.ravel().tolist(), fill=fill)

    def add_glow(self, column: float, row: float, radius: float, color: np.ndarray, power: int = 2) -> None:
        """Add a soft light around a pixel; the color is RGB, 0 to 255."""
        size = max(2, round(2 * radius))
        glow = make_glow(power).resize((size, size), Image.Resampling.BILINEAR)
        left, top = round(column - radius), round(row - radius)
        region = self.image.crop((left, top, left + size, top + size))
        tint = Image.new("RGB", (size, size), tuple(int(part) for part in color))
        light = ImageChops.multiply(tint, Image.merge("RGB", (glow,) * 3))
        self.image.paste(ImageChops.add(region, light), (left, top))
