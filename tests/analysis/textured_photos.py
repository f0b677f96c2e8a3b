"""Made-up photos with many local features, seen from several sides."""

import cv2
import numpy as np
from conftest import photo_name
from PIL import Image

# Views of a flat wall: pixels of one photo -> pixels of another.
SEEN_FROM_ASIDE = np.array([[0.95, -0.12, 25.0], [0.08, 0.97, -8.0], [1e-4, -2e-4, 1.0]])
MOVED = np.array([[1.03, 0.04, -6.0], [-0.03, 1.02, 4.0], [0.0, 1e-4, 1.0]])

EVENING = np.array([0.8, 0.5, 0.3])  # of red, green and blue


def draw_wall(seed, size=300):
    """(size, size, 3) uint8: a wall of random rectangles."""
    rng = np.random.default_rng(seed)
    photo = np.zeros((size, size, 3), dtype=np.uint8)
    for _ in range(size):
        x, y = rng.integers(0, size, 2).tolist()
        width, height = rng.integers(4, size // 4, 2).tolist()
        cv2.rectangle(photo, (x, y), (x + width, y + height), rng.integers(0, 256, 3).tolist(), -1)
    return cv2.GaussianBlur(photo, (3, 3), 0.8)


def look(photo, homography):
    return cv2.warpPerspective(photo, homography, photo.shape[1::-1])


def write_split(folder, queries, database, far_m=0.0):
    """Write a split of 120 px photos; `queries` and `database` are the walls that they show, one each 1000 m.

    Queries are seen from another side, and every second one in the light of the evening.

    Args:
        far_m: meters between the queries and the database photos of the same wall.
    """
    for half, walls in (("queries", queries), ("database", database)):
        (folder / half).mkdir(parents=True)
        for number, wall in enumerate(walls):
            photo, east = draw_wall(wall, 120), 1000 * wall + 5 * (number % 3)
            if half == "queries":
                photo, east = look(photo, MOVED) * (EVENING if number % 2 else 1.0), east + far_m
            Image.fromarray(photo.astype(np.uint8)).save(folder / half / photo_name(east, 4e6, pano=number), quality=95)
    return folder
