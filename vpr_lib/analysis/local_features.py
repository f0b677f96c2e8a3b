"""Local features: points of a photo that are found again in another one, matched and checked by geometry.

SIFT needs neither training nor weights. A matcher of another kind can take its place, see `verification`.
"""

from typing import NamedTuple

import cv2
import numpy as np

# Chosen on 296 queries among real training photos; 512 pixels take twice as long and were no better there.
MAX_PIXELS = 384  # longer side of a photo; smaller photos are not enlarged
MAX_POINTS = 1000
RATIO = 0.75
THRESHOLD_PX = 3.0  # distance of an inlier from its epipolar line
MIN_MATCHES = 8  # seven matches determine a fundamental matrix, so it fits them whatever they are
CONTRAST_LIMIT, CONTRAST_TILES = 2.0, (8, 8)


class LocalFeatures(NamedTuple):
    """The local features of a photo; N may be 0."""

    points: np.ndarray  # (N, 2) float32, x and y in pixels
    descriptors: np.ndarray  # (N, 128) uint8, histograms of gradients


class SharedPoints(NamedTuple):
    """The points that two photos share: the inliers among their matches."""

    first: np.ndarray  # (n, 2) float32, x and y in pixels of the first photo
    second: np.ndarray  # (n, 2) float32, of the second photo
    num_matches: int


def extract_sift(photo: np.ndarray) -> LocalFeatures:
    """SIFT features of a photo (H, W, 3) uint8, RGB. Equalizing the local contrast first finds points in dark photos.

    Source: Lowe, Distinctive Image Features from Scale-Invariant Keypoints (IJCV 2004).
    """
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    gray = cv2.createCLAHE(CONTRAST_LIMIT, CONTRAST_TILES).apply(gray)
    keypoints, descriptors = cv2.SIFT_create(MAX_POINTS).detectAndCompute(gray, None)
    points = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float32).reshape(-1, 2)
    if descriptors is None:
        descriptors = np.zeros((0, 128))
    return LocalFeatures(points, descriptors.astype(np.uint8))  # OpenCV's are whole numbers from 0 to 255


def match_features(first: LocalFeatures, second: LocalFeatures, ratio: float = RATIO) -> np.ndarray:
    """Pairs of points that are each other's nearest by descriptor, and clearly nearer than the second nearest.

    Args:
        first, second: features of two photos.
        ratio: largest distance to the nearest, as a fraction of that to the second nearest in `second`.

    Returns:
        (M, 2) int64, rows of `first` and of `second`; none where a photo has fewer than two features.

    Source: Lowe (IJCV 2004), section 7.1; the square roots of the histograms are compared, as in Arandjelovic and
    Zisserman, Three Things Everyone Should Know to Improve Object Retrieval (CVPR 2012), section 3.
    """
    if min(len(first.points), len(second.points)) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    similarities = _take_roots(first.descriptors) @ _take_roots(second.descriptors).T  # (N, M)
    rows = np.arange(len(similarities))
    nearest = similarities.argmax(1)
    is_mutual = similarities.argmax(0)[nearest] == rows
    best = similarities[rows, nearest]
    similarities[rows, nearest] = -1.0
    # The squared distance of unit vectors is 2 - 2 similarity; rounding must not tell equal ones apart.
    first_half, second_half = np.maximum(1 - np.stack([best, similarities.max(1)]), 1e-6)
    is_clear = first_half < ratio**2 * second_half
    kept = np.flatnonzero(is_mutual & is_clear)
    return np.stack([kept, nearest[kept]], axis=1)


def _take_roots(histograms: np.ndarray) -> np.ndarray:
    """(N, 128) float32 of unit norm: square roots of each histogram's shares."""
    histograms = histograms.astype(np.float32)
    return np.sqrt(histograms / np.maximum(histograms.sum(1, keepdims=True), 1.0))


def find_inliers(first: LocalFeatures, second: LocalFeatures) -> np.ndarray:
    """The matches that fit one camera motion: (M, 2) int64 as from `match_features`.

    They lie near the epipolar lines of the fundamental matrix that most matches agree on. None if there are fewer than
    eight matches; photos of different places have up to about twelve by chance. The same features always give the same
    result.

    Source: Barath et al., MAGSAC++ (CVPR 2020), as implemented in OpenCV.
    """
    matches = match_features(first, second)
    if len(matches) < MIN_MATCHES:
        return matches[:0]
    points = first.points[matches[:, 0]], second.points[matches[:, 1]]
    try:  # OpenCV's USAC methods start from a fixed seed of their own
        _, mask = cv2.findFundamentalMat(*points, cv2.USAC_MAGSAC, THRESHOLD_PX, 0.999, 1000)
    except cv2.error:  # OpenCV 5 fails on matches that fit no model, where OpenCV 4 returns None
        mask = None
    return matches[:0] if mask is None else matches[mask.ravel() > 0]


def match_photos(first_photo: np.ndarray, second_photo: np.ndarray) -> SharedPoints:
    """Match two photos (H, W, 3) uint8, RGB, by SIFT."""
    first, second = extract_sift(first_photo), extract_sift(second_photo)
    inliers = find_inliers(first, second)  # (n, 2)
    num_matches = len(match_features(first, second))
    return SharedPoints(first.points[inliers[:, 0]], second.points[inliers[:, 1]], num_matches)


def count_inliers(first: LocalFeatures, second: LocalFeatures) -> int:
    """The number of inliers of two photos: the default matcher of `verification`."""
    return len(find_inliers(first, second))
