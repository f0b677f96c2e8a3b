"""Random numbers that follow from names and seeds."""

import zlib

import numpy as np


def make_rng(*keys: int | str) -> np.random.Generator:
    """A generator that depends on all keys and on nothing else."""
    return np.random.default_rng([zlib.crc32(key.encode()) if isinstance(key, str) else int(key) for key in keys])
