"""A pinhole camera on a car: projects metres in the city to pixels in the photo."""

import math
from dataclasses import dataclass

import numpy as np

NEAR_M = 0.25  # nearest depth that is drawn


@dataclass(frozen=True)
class Camera:
    """A level camera; as with a shifted lens, the horizon may lie off the center while verticals stay vertical."""

    x: float  # metres east
    y: float  # metres north
    heading: float  # degrees clockwise from north
    height: float = 2.4  # metres above the road
    fov: float = 72.0  # horizontal field of view, degrees
    horizon: float = 0.58  # row of the horizon as a share of the photo's height
    size: int = 320  # pixels, height and width

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return self.size / 2 / math.tan(math.radians(self.fov / 2))

    @property
    def forward(self) -> np.ndarray:
        """(2,) unit vector east, north."""
        return np.array([math.sin(math.radians(self.heading)), math.cos(math.radians(self.heading))])

    @property
    def right(self) -> np.ndarray:
        """(2,) unit vector to the right of the photo."""
        return np.array([math.cos(math.radians(self.heading)), -math.sin(math.radians(self.heading))])

    def to_view(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) metres east and north -> (..., 2) metres to the right and ahead."""
        offset = np.asarray(points, float)[..., :2] - (self.x, self.y)
        return np.stack([offset @ self.right, offset @ self.forward], axis=-1)

    def to_pixels(self, view: np.ndarray, z: np.ndarray | float) -> np.ndarray:
        """Right and ahead (..., 2), height z (...) -> column and row (..., 2); ahead must be positive."""
        scale = self.focal / view[..., 1]
        columns = self.size / 2 + view[..., 0] * scale
        return np.stack([columns, self.horizon * self.size + (self.height - z) * scale], axis=-1)

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) metres -> (N, 2) column and row; nan for points behind the camera."""
        view = self.to_view(points)
        view = np.where(view[:, 1:] > NEAR_M, view, np.nan)
        return self.to_pixels(view, np.asarray(points, float)[:, 2])

    def project_polygon(self, points: np.ndarray) -> np.ndarray | None:
        """A plane polygon (N, 3) in metres -> (M, 2) pixels of the part ahead; None if there is none."""
        points = np.asarray(points, float)
        corners = np.column_stack([self.to_view(points), points[:, 2]])
        if (corners[:, 1] < NEAR_M).any():
            corners = _clip_near(corners)
        if len(corners) < 3:
            return None
        return self.to_pixels(corners[:, :2], corners[:, 2])


def _clip_near(corners: np.ndarray) -> np.ndarray:
    """The part of a polygon (N, 3: right, ahead, up) that lies at least `NEAR_M` ahead.

    Source: Sutherland and Hodgman, Reentrant polygon clipping (1974), for one plane.
    """
    kept = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if start[1] >= NEAR_M:
            kept.append(start)
        if (start[1] >= NEAR_M) != (end[1] >= NEAR_M):
            kept.append(start + (end - start) * (NEAR_M - start[1]) / (end[1] - start[1]))
    return np.array(kept).reshape(-1, 3)


def turn_between(heading: float, other: float) -> float:
    """Degrees from the `other` heading to this one, -180 to 180, clockwise."""
    return (heading - other + 180) % 360 - 180
