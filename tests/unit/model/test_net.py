from __future__ import annotations

import contextlib
import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from labelloop.config.project import BackboneSpec
from labelloop.config.training import Retrain
from labelloop.decoding.square import Square, decode
from labelloop.errors import CorruptArtefactError, ImageUnreadableError, SettingsError
from labelloop.model import net
from retrain_worker.training.optimiser import make_optimiser

SMALL = "mobilenetv3_small_050"  # the smallest convolutional network of timm that builds in milliseconds


def encoded(pixels: np.ndarray[Any, Any], form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def noise(n: int, backbone: net.Backbone) -> np.ndarray[Any, np.dtype[np.uint8]]:
    size = backbone.square.size
    return np.random.default_rng(0).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


# --- the built-in backbone


def test_pixels_has_the_same_id_on_every_machine() -> None:
    # a change of this id is one of what new projects get; those of before keep their record, and so their features
    assert net.build(BackboneSpec(name="pixels"), []).record.id == "pixels-17c5a14a5f"


def test_pixels_learns_digits_from_200_random_labels() -> None:
    backbone = net.build(BackboneSpec(name="pixels"), [])
    images, labels = load_digits(return_X_y=True)
    gray = (images.reshape(-1, 8, 8) / 16 * 255).astype(np.uint8)
    features = backbone.features(np.stack([backbone.decode(encoded(image)) for image in gray]))
    scores = []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(labels))
        train, test = order[:200], order[200:]
        fitted = LogisticRegression(C=1.0, tol=1e-3, max_iter=500).fit(features[train], labels[train])
        scores.append(fitted.score(features[test], labels[test]))
    assert np.mean(scores) >= 0.92


def test_pixels_sees_colour() -> None:
    backbone = net.build(BackboneSpec(name="pixels"), [])
    red, blue = (np.full((9, 9, 3), c, dtype=np.uint8) for c in ([200, 0, 0], [0, 0, 200]))
    rows = backbone.features(np.stack([backbone.decode(encoded(red)), backbone.decode(encoded(blue))]))
    assert np.abs(rows[0] - rows[1]).max() > 0.1


def test_pixels_can_be_fine_tuned_and_is_then_another_backbone() -> None:
    first = net.build(BackboneSpec(name="pixels"), [])
    tuned = first.clone()
    tuned.module.train()
    tuned.module(tuned.normalise(torch.from_numpy(noise(4, tuned)))).pow(2).sum().backward()
    with torch.no_grad():
        for parameter in tuned.module.parameters():
            assert parameter.grad is not None
            parameter.sub_(parameter.grad, alpha=1e-3)
    tuned = tuned.recorded(provenance="fine-tuned", snapshot="s1")
    assert tuned.record.id != first.record.id
    assert (tuned.record.snapshot, first.record.snapshot) == ("s1", None)
    assert not tuned.module.training
    net.verify(tuned)
    net.verify(first)  # the original is untouched


@pytest.mark.parametrize("options", [{"projection": 0}, {"no_such": 1}])
def test_options_that_do_not_fit_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="options"):
        net.build(BackboneSpec(name="pixels", options=options), [])


# --- any timm network


@pytest.fixture(scope="module")
def small() -> net.Backbone:
    return net.build(BackboneSpec(name=SMALL, pretrained=False, image_size=64), [])


def test_a_random_start_is_reproducible_and_says_so(small: net.Backbone) -> None:
    torch.manual_seed(123)
    again = net.build(BackboneSpec(name=SMALL, pretrained=False, image_size=64), [])
    assert again.record.id == small.record.id
    assert small.record.id.startswith(f"{SMALL}-")
    assert small.record.provenance == "random start, as asked"
    assert small.record.preprocessing["size"] == 64
    assert len(small.record.preprocessing["mean"]) == 3


def test_features_do_not_depend_on_the_batch(small: net.Backbone) -> None:
    images = noise(40, small)
    rows = small.features(images)
    assert rows.dtype == np.float32
    assert rows.shape == (40, small.record.dimension)
    np.testing.assert_allclose(rows[35:36], small.features(images[35:36]), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(rows, small.features(images))
    assert small.features(images[:0]).shape == (0, small.record.dimension)


def test_dump_and_load_give_the_same_backbone(small: net.Backbone) -> None:
    weights = net.dump(small)
    loaded = net.load(small.record, weights)
    net.verify(loaded)
    assert net.dump(loaded) == weights
    np.testing.assert_allclose(loaded.features(noise(2, small)), small.features(noise(2, small)), rtol=1e-4, atol=1e-5)


def test_preprocessing_and_options_are_part_of_the_id(small: net.Backbone) -> None:
    other = net.build(BackboneSpec(name=SMALL, pretrained=False, image_size=96), [])
    assert other.record.weights_sha256 == small.record.weights_sha256
    assert other.record.id != small.record.id


def test_changed_weights_are_refused(small: net.Backbone) -> None:
    weights = bytearray(net.dump(small))
    weights[-1] ^= 1
    with pytest.raises(CorruptArtefactError, match="recorded hash"):
        net.load(small.record, bytes(weights))


def test_weights_of_another_network_are_refused(small: net.Backbone) -> None:
    pixels = net.build(BackboneSpec(name="pixels"), [])
    record = replace(small.record, weights_sha256=pixels.record.weights_sha256)
    with pytest.raises(CorruptArtefactError, match="do not fit"):
        net.load(record, net.dump(pixels))


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_network_that_answers_differently_is_refused(small: net.Backbone, value: float) -> None:
    broken = small.clone()
    with torch.no_grad():
        for parameter in broken.module.parameters():
            parameter.fill_(value)
    with pytest.raises(CorruptArtefactError, match="outputs"):
        net.verify(broken)


def test_an_unknown_network_is_refused_with_near_names() -> None:
    with pytest.raises(SettingsError, match="resnet18"):
        net.build(BackboneSpec(name="resnet_18"), [])
    with pytest.raises(SettingsError, match="neither"):
        net.build(BackboneSpec(name="hf-hub:someone/else"), [])


def test_options_cannot_smuggle_in_other_weights() -> None:
    with pytest.raises(SettingsError, match="checkpoint_path"):
        net.build(BackboneSpec(name=SMALL, options={"checkpoint_path": "x.pth"}), [])


# --- where weights come from


def test_a_file_by_name_or_path_is_loaded(small: net.Backbone, tmp_path: Path) -> None:
    import timm

    file = tmp_path / f"{SMALL}.mine.safetensors"
    state = timm.create_model(SMALL, pretrained=False).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, file)
    by_name = net.build(BackboneSpec(name=SMALL, pretrained=file.name, image_size=64), [tmp_path])
    by_path = net.build(BackboneSpec(name=SMALL, pretrained=str(file), image_size=64), [])
    auto = net.build(BackboneSpec(name=SMALL, pretrained="auto", image_size=64), [tmp_path], offline=True)
    assert by_name.record.id == by_path.record.id == auto.record.id != small.record.id
    assert by_name.record.provenance == f"file {file.name}"


def test_auto_without_a_way_out_falls_back_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    backbone = net.build(BackboneSpec(name=SMALL, pretrained="auto", image_size=64), [], offline=True)
    assert "no weights could be had" in backbone.record.provenance
    assert "weights_fallback" in "".join(capsys.readouterr())


@pytest.mark.parametrize("pretrained", [True, "nothing.safetensors"])
def test_weights_that_were_demanded_and_are_not_there_are_an_error(pretrained: str | bool, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"LABELLOOP_WEIGHTS|neither a file"):
        net.build(BackboneSpec(name=SMALL, pretrained=pretrained), [tmp_path], offline=True)


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(SettingsError, match="pickle"):
        net.build(BackboneSpec(name=SMALL, pretrained="w.pth"), [tmp_path])


# --- decoding

WHOLE = Square(16, squash=True)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_any_mode_becomes_rgb(mode: str) -> None:
    gray = np.full((20, 30), 128, dtype=np.uint8)
    image = Image.fromarray(gray)
    if mode == "I;16":
        image = Image.fromarray(gray.astype(np.uint16) * 256)
    elif mode != "L":
        image = image.convert(mode)
    out = io.BytesIO()
    image.save(out, "TIFF")
    pixels = decode(out.getvalue(), WHOLE)
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype == np.uint8
    assert mode == "1" or np.abs(pixels.astype(int) - 128).max() <= 2


def test_transparent_pixels_are_white() -> None:
    clear = np.zeros((8, 8, 4), dtype=np.uint8)
    assert decode(encoded(clear), WHOLE).min() == 255


def test_exif_orientation_is_followed() -> None:
    upright = np.zeros((32, 32, 3), dtype=np.uint8)
    upright[:16] = 255  # bright above
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side: turn clockwise to see it upright
    turned = encoded(np.rot90(upright).copy(), "JPEG", exif=exif.tobytes(), quality=95)
    pixels = decode(turned, WHOLE)
    assert pixels[:, :6].min() > 200
    assert pixels[:, 10:].max() < 50


def test_the_middle_is_kept_at_its_aspect_ratio() -> None:
    wide = np.zeros((40, 120, 3), dtype=np.uint8)
    wide[:, 40:80] = 255
    assert decode(encoded(wide), Square(16)).min() > 200
    assert decode(encoded(wide), WHOLE).min() < 50


def test_scaled_jpeg_decode_is_close_to_the_full_one() -> None:
    steps = np.linspace(0, 255, 1600, dtype=np.uint8)
    large = np.stack([np.tile(steps, (1200, 1)), np.tile(steps[:1200, None], (1, 1600)), np.zeros((1200, 1600))], 2)
    large = large.astype(np.uint8)
    square = Square(64, 0.875)
    full, scaled = decode(encoded(large), square), decode(encoded(large, "JPEG", quality=95), square)
    assert np.abs(full.astype(int) - scaled.astype(int)).mean() < 3


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it has 10^10 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0" * 100


@pytest.mark.parametrize(
    "data",
    [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg/>", bomb()],
    ids=["empty", "text", "postscript", "svg", "bomb"],
)
def test_what_is_no_image_says_so(data: bytes) -> None:
    with pytest.raises(ImageUnreadableError):
        decode(data, WHOLE)


def test_broken_bytes_never_escape_as_anything_else() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        good = encoded(pixels, form)
        for _ in range(40):
            bad = bytearray(good[: rng.integers(1, len(good))] if rng.random() < 0.5 else good)
            for place in rng.integers(0, len(bad), 3):
                bad[place] = rng.integers(0, 256)
            with contextlib.suppress(ImageUnreadableError):
                assert decode(bytes(bad), WHOLE).shape == (3, 16, 16)


def test_a_neck_is_part_of_the_network_and_learns_at_the_rate_of_what_is_new() -> None:
    plain = BackboneSpec(name=SMALL, pretrained=False, image_size=32)
    spec = plain.model_copy(update={"options": {"neck": 24, "neck_dropout": 0.5}})
    built, wide = net.build(spec, []), net.build(plain, []).record.dimension
    assert built.record.dimension == 24
    assert net.follows(built.record, spec)
    assert not net.follows(built.record, spec.model_copy(update={"options": {"neck": 32}}))
    again = net.load(built.record, net.dump(built))
    net.verify(again)
    policy = Retrain(learning_rate=0.01, backbone_rate=0.1)
    rates: dict[float, int] = {}
    for group in make_optimiser(built.module, nn.Linear(24, 3), policy).param_groups:
        rates[group["lr"]] = rates.get(group["lr"], 0) + sum(p.numel() for p in group["params"])
    assert rates[0.01] == 24 * wide + 24 + 24 * 3 + 3
    assert sorted(rates) == pytest.approx([0.001, 0.01])


@pytest.mark.parametrize("options", [{"neck": 0}, {"neck": "wide"}, {"neck": 8, "neck_dropout": 1.0}])
def test_a_neck_that_cannot_be_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="neck"):
        net.build(BackboneSpec(name=SMALL, pretrained=False, image_size=32, options=options), [])
