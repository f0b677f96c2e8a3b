"""When a photo is taken, and the light that follows from it."""

import math
from dataclasses import dataclass

import numpy as np

LIGHTS = ("day", "overcast", "sunset", "night", "backlight", "rain")


@dataclass(frozen=True)
class Moment:
    """When a photo is taken."""

    year: int  # changes signs and shops
    month: int  # 1 to 12, changes leaves
    light: str  # one of `LIGHTS`
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
    elevation: float  # of the sun, degrees
    zenith: np.ndarray
    horizon: np.ndarray  # of the sky, and of the haze
    haze_m: float  # distance at which haze takes 63% of a color
    clouds: float  # share of the sky
    glow: float = 0.0  # strength of lamps and windows

    @property
    def ground(self) -> np.ndarray:
        """(3,) RGB factor of what lies flat."""
        return self.ambient + 0.8 * math.sin(math.radians(self.elevation)) * self.sun

    def shade_walls(self, sun_heading: float, normals: np.ndarray) -> np.ndarray:
        """(..., 2) horizontal unit normals of walls -> (..., 3) RGB factors."""
        heading, elevation = math.radians(sun_heading), math.radians(self.elevation)
        toward_sun = np.array([math.sin(heading), math.cos(heading)]) * math.cos(elevation)
        return self.ambient + np.maximum(normals @ toward_sun, 0)[..., None] * self.sun


def _rgb(red: float, green: float, blue: float) -> np.ndarray:
    return np.array([red, green, blue], float)


LIGHTINGS = {
    "day": Lighting(_rgb(0.6, 0.63, 0.7), _rgb(0.62, 0.56, 0.46), 42,
                    _rgb(0.28, 0.48, 0.82), _rgb(0.74, 0.83, 0.93), 900, 0.35),
    "overcast": Lighting(_rgb(0.76, 0.78, 0.8), _rgb(0.05, 0.05, 0.05), 50,
                         _rgb(0.62, 0.65, 0.7), _rgb(0.8, 0.82, 0.84), 500, 0.95),
    "sunset": Lighting(_rgb(0.4, 0.33, 0.36), _rgb(0.62, 0.32, 0.12), 9,
                       _rgb(0.25, 0.28, 0.5), _rgb(0.98, 0.6, 0.35), 600, 0.45, 0.5),
    "night": Lighting(_rgb(0.3, 0.26, 0.25), _rgb(0.04, 0.04, 0.05), 50,
                      _rgb(0.015, 0.02, 0.05), _rgb(0.1, 0.09, 0.12), 700, 0.3, 1),
    "backlight": Lighting(_rgb(0.36, 0.36, 0.38), _rgb(0.75, 0.62, 0.42), 14,
                          _rgb(0.5, 0.6, 0.78), _rgb(1.05, 0.96, 0.8), 260, 0.2),
    "rain": Lighting(_rgb(0.5, 0.52, 0.56), _rgb(0.0, 0.0, 0.0), 50,
                     _rgb(0.42, 0.45, 0.5), _rgb(0.62, 0.65, 0.68), 190, 1.0, 0.15),
}  # fmt: skip
