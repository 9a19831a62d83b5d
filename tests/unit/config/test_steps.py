"""Preprocessing steps and the small network: the same wherever they run, and refused where they cannot work."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelloop.config.project import BackboneSpec, parse_config
from labelloop.decoding.square import Square, decode
from labelloop.errors import SettingsError
from labelloop.model import net

SIZE = 32


def encoded(pixels: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def spec(*steps: dict[str, Any], **fields: Any) -> BackboneSpec:
    config = parse_config({"backbone": {"name": "small_cnn", "image_size": SIZE, "steps": list(steps), **fields}}, "it")
    return config.backbone


def decoded(pixels: np.ndarray[Any, Any], *steps: dict[str, Any]) -> np.ndarray[Any, Any]:
    """(H, W, 3) after the recorded steps of a backbone with these."""
    backbone = net.build(spec(*steps), [])
    return backbone.decode(encoded(pixels)).transpose(1, 2, 0)


@pytest.fixture
def colours() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def test_gray_is_luminance_in_all_channels(colours: np.ndarray[Any, Any]) -> None:
    found = decoded(colours, {"do": "gray"})
    assert (found[..., 0] == found[..., 1]).all()
    expected = colours @ np.array([0.299, 0.587, 0.114])
    assert np.abs(found[..., 0] - expected).max() <= 1


def test_blur_takes_away_noise_and_no_brightness(colours: np.ndarray[Any, Any]) -> None:
    found = decoded(colours, {"do": "blur", "kernel": 5})
    assert found.std() < 0.5 * colours.std()
    assert found.mean() == pytest.approx(colours.mean(), abs=1)


def test_hsv_tells_pure_colours() -> None:
    image = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    image[:16, :, 0], image[16:, :, 2] = 255, 255  # red above, blue below
    found = decoded(image, {"do": "hsv"})
    assert tuple(found[2, 5]) == (0, 255, 255)
    assert tuple(found[29, 5]) == (120, 255, 255)


def test_a_mask_keeps_the_range_of_colours_alone() -> None:
    image = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    image[:16, :, 0], image[16:, :, 2] = 255, 255
    found = decoded(image, {"do": "mask", "low": [110, 50, 50], "high": [130, 255, 255]})
    assert (found[:15] == 0).all()
    assert (found[17:, :, 2] == 255).all()


def test_steps_come_in_their_order(colours: np.ndarray[Any, Any]) -> None:
    blur, hsv = {"do": "blur", "kernel": 5}, {"do": "hsv"}
    assert not np.array_equal(decoded(colours, blur, hsv), decoded(colours, hsv, blur))


def test_a_reloaded_backbone_prepares_images_alike(colours: np.ndarray[Any, Any]) -> None:
    built = net.build(spec({"do": "blur"}, {"do": "gray"}, scale="unit"), [])
    again = net.load(built.record, net.dump(built))
    net.verify(again)
    data = encoded(colours)
    assert np.array_equal(built.decode(data), again.decode(data))
    assert np.array_equal(built.features(built.decode(data)[None]), again.features(again.decode(data)[None]))
    assert built.record.id != net.build(spec({"do": "gray"}, {"do": "blur"}, scale="unit"), []).record.id


def test_without_steps_nothing_changes(colours: np.ndarray[Any, Any]) -> None:
    plain = decode(encoded(colours), Square(SIZE, squash=True, interpolation="bilinear"))
    assert np.array_equal(decoded(colours), plain.transpose(1, 2, 0))
    assert "steps" not in net.build(spec(), []).record.preprocessing


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"do": "sharpen"}, "sharpen"),
        ({"do": "blur", "kernel": 4}, "must be odd"),
        ({"do": "mask", "low": [10, 0, 0], "high": [5, 255, 255]}, "nothing would be left"),
        ({"do": "mask", "low": [0, 0, 0], "high": [300, 0, 0]}, "255"),
        ({"do": "gray", "amount": 3}, "amount"),
    ],
)
def test_a_step_that_cannot_be_is_refused_in_words(step: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        spec(step)


# --- the small network


def test_the_small_network_starts_alike_in_every_process() -> None:
    assert net.build(spec(), []).record.id == net.build(spec(), []).record.id
    assert net.build(spec(), []).record.provenance.startswith("random start")


def test_its_parts_can_be_chosen() -> None:
    built = net.build(spec(options={"filters": [4, 8], "dense": 7, "dropout": [0.1, 0.2, 0.3]}), [])
    assert built.record.dimension == 7
    assert net.load(built.record, net.dump(built)).record.dimension == 7


def test_it_serves_without_dropout(colours: np.ndarray[Any, Any]) -> None:
    built = net.build(spec(options={"dropout": 0.9}), [])
    pixels = built.decode(encoded(colours))[None]
    assert np.array_equal(built.features(pixels), built.features(pixels))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"filters": [2] * 6}, "halve 32 pixels to nothing"),
        ({"filters": []}, "positive"),
        ({"dropout": [0.1]}, "4 of them"),
        ({"dropout": 1.0}, "one rate"),
        ({"strides": 2}, "strides"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_in_words(options: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        net.build(spec(options=options), [])
