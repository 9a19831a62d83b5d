"""Where a model looks, by occlusion: what hiding a part of the image takes from the likeliest class. Needs no gradient.

Rows of parts are computed apart, so that other calls' images come between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from labelloop.decoding.square import Pixels
from labelloop.records.arrays import Floats

GRID = 7  # parts on each side

Chances = Callable[[Pixels], Floats]  # (n, 3, size, size) uint8 to (n,): the probability of one class


def heat_map(pixels: Pixels, chances: Chances) -> list[list[float]]:
    """(GRID, GRID): the probability that is lost with each part hidden; below 0 where hiding it helps.

    ``pixels``: (3, size, size) uint8, what the network sees. A hidden part has the image's mean colour.
    """
    before = float(chances(pixels[np.newaxis])[0])
    edges = [int(edge) for edge in np.linspace(0, pixels.shape[1], GRID + 1)]
    mean = pixels.mean(axis=(1, 2)).astype(np.uint8)[:, np.newaxis, np.newaxis]
    return [[round(before - float(c), 4) for c in chances(_hidden(pixels, edges, row, mean))] for row in range(GRID)]


def _hidden(pixels: Pixels, edges: Sequence[int], row: int, mean: Pixels) -> Pixels:
    """(GRID, 3, size, size): one image for each part of a row."""
    images = np.repeat(pixels[np.newaxis], GRID, axis=0)
    for column, image in enumerate(images):
        image[:, edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = mean
    return images
