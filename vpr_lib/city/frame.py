"""A photo in the making: what all that draw on it share."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from vpr_lib.city.camera import Camera
from vpr_lib.city.light import Lighting, Moment
from vpr_lib.city.scene import City
from vpr_lib.city.sprites import draw_glow


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

    def add_glow(self, x: float, y: float, radius: float, colour: np.ndarray, power: int = 2) -> None:
        """Add a soft light around a pixel; the colour is RGB, 0 to 255."""
        size = max(2, round(2 * radius))
        glow = draw_glow(power).resize((size, size), Image.Resampling.BILINEAR)
        box = (round(x - radius), round(y - radius))
        region = self.image.crop((*box, box[0] + size, box[1] + size))
        tint = Image.new("RGB", (size, size), tuple(int(c) for c in colour))
        light = ImageChops.multiply(tint, Image.merge("RGB", (glow,) * 3))
        self.image.paste(ImageChops.add(region, light), box)
