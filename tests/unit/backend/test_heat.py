"""A heat map shows the part that an answer rests on."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from labelloop.decoding.square import Pixels
from labelloop.records.arrays import Floats
from ml_backend.classify.heat import GRID, heat_map
from tests.unit.worlds.api import api_world
from tests.unit.worlds.backend import World, picture


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 5), (6, 6)])
@pytest.mark.parametrize("side", [224, 30, GRID])
def test_the_part_that_matters_is_the_hottest(row: int, column: int, side: int) -> None:
    edges = np.linspace(0, side, GRID + 1).astype(int)
    part = (slice(edges[row], edges[row + 1]), slice(edges[column], edges[column + 1]))
    pixels = np.zeros((3, side, side), dtype=np.uint8)
    pixels[:, *part] = 255
    before = pixels.copy()

    def bright(images: Pixels) -> Floats:
        return np.asarray(images[:, 0, *part].mean(axis=(1, 2)) / 255, dtype=np.float32)

    heat = np.array(heat_map(pixels, bright))
    assert heat.shape == (GRID, GRID)
    assert heat.argmax() == row * GRID + column
    assert heat.max() > 0.9
    assert np.count_nonzero(heat) == 1
    assert (pixels == before).all()


def test_it_comes_where_asked_for_and_of_few_images() -> None:
    world = World()
    world.deploy(world.add(world.backbone(), 1))
    one: dict[str, Any] = {"base64": base64.b64encode(picture(1)).decode()}
    with api_world(world) as api:
        with_map = api.classify(json={"images": [one, {"base64": ""}], "heat_map": True}).get_json()["images"]
        without = api.classify(json={"images": [one]}).get_json()["images"]
        too_many = api.classify(json={"images": [one] * 5, "heat_map": True})
    assert np.array(with_map[0]["heat_map"]).shape == (GRID, GRID)
    assert with_map[1]["heat_map"] is None
    assert without[0]["heat_map"] is None
    assert too_many.status_code == 422
