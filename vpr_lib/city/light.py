"""When a photo is taken: the date, the weather, the light that follows from them."""

import math
from dataclasses import dataclass

import numpy as np

LIGHTS = ("day", "overcast", "sunset", "night", "backlight", "rain")


@dataclass(frozen=True)
class Moment:
    """When a photo is taken.

    Attributes:
        year: changes signs and shops.
        month: 1 to 12, changes leaves.
        light: one of `LIGHTS`.
        sun: heading the sun shines from, degrees.
        seed: cars, people, clouds, lit windows, the sensor's noise.
    """

    year: int
    month: int
    light: str
    sun: float
    seed: int

    @property
    def dark(self) -> bool:
        """Whether lamps and windows are lit."""
        return self.light in ("night", "sunset")


@dataclass(frozen=True, eq=False)
class Lighting:
    """Colours of a light, RGB from 0 to 1 (over 1 is cut by the sensor)."""

    ambient: np.ndarray
    sun: np.ndarray
    elevation: float  # of the sun, degrees
    zenith: np.ndarray
    horizon: np.ndarray  # of the sky, and of the haze
    haze_m: float  # distance at which haze takes 63% of a colour
    clouds: float  # share of the sky
    glow: float  # strength of lamps and windows


def _lighting(ambient, sun, elevation, zenith, horizon, haze_m, clouds, glow=0.0):  # noqa: ANN001, ANN202
    colours = (np.array(c, float) for c in (ambient, sun))
    skies = (np.array(c, float) for c in (zenith, horizon))
    return Lighting(*colours, elevation, *skies, haze_m, clouds, glow)


LIGHTINGS = {
    "day": _lighting((0.6, 0.63, 0.7), (0.62, 0.56, 0.46), 42, (0.28, 0.48, 0.82), (0.74, 0.83, 0.93), 900, 0.35),
    "overcast": _lighting((0.76, 0.78, 0.8), (0.05, 0.05, 0.05), 50, (0.62, 0.65, 0.7), (0.8, 0.82, 0.84), 500, 0.95),
    "sunset": _lighting((0.4, 0.33, 0.36), (0.62, 0.32, 0.12), 9, (0.25, 0.28, 0.5), (0.98, 0.6, 0.35), 600, 0.45, 0.5),
    "night": _lighting((0.3, 0.26, 0.25), (0.04, 0.04, 0.05), 50, (0.015, 0.02, 0.05), (0.1, 0.09, 0.12), 700, 0.3, 1),
    "backlight": _lighting((0.36, 0.36, 0.38), (0.75, 0.62, 0.42), 14, (0.5, 0.6, 0.78), (1.05, 0.96, 0.8), 260, 0.2),
    "rain": _lighting((0.5, 0.52, 0.56), (0.0, 0.0, 0.0), 50, (0.42, 0.45, 0.5), (0.62, 0.65, 0.68), 190, 1.0, 0.15),
}  # fmt: skip


def shade(lighting: Lighting, sun_heading: float, normal: np.ndarray) -> np.ndarray:
    """(..., 2) horizontal unit normals of walls -> (..., 3) RGB factors."""
    heading, elevation = math.radians(sun_heading), math.radians(lighting.elevation)
    towards = np.array([math.sin(heading), math.cos(heading)]) * math.cos(elevation)
    return lighting.ambient + np.maximum(normal @ towards, 0)[..., None] * lighting.sun


def shade_ground(lighting: Lighting) -> np.ndarray:
    """(3,) RGB factor of what lies flat."""
    return lighting.ambient + 0.8 * math.sin(math.radians(lighting.elevation)) * lighting.sun


def season_of(month: int) -> str:
    """Month -> winter, spring, summer or autumn."""
    return ("winter", "spring", "summer", "autumn")[month % 12 // 3]
