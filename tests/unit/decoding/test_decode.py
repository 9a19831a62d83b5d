"""What a pixel is: depth, size, the end of a file; the same as ever for every ordinary image."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import labelloop
from labelloop.config.project import BackboneSpec
from labelloop.decoding.declared import declared, sides_of
from labelloop.decoding.square import FORMATS, Square, decode, shrink
from labelloop.errors import ImageUnreadableError
from labelloop.model import net
from tests.hostile.worst import saved

WHOLE = Square(256)
OLD = {"size": 256, "crop": 1.0, "crop_mode": "center", "interpolation": "bicubic"}  # recorded before depths were


def written(values: np.ndarray, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, form, **options)  # type: ignore[arg-type]
    return out.getvalue()


def ramp(most: float, kind: type = np.uint16) -> np.ndarray:
    return np.tile(np.linspace(0, most, 256).astype(kind), (256, 1))


# --- depth


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize(("most", "levels", "brightest"), [(255, 256, 255), (4095, 256, 255), (65535, 256, 255)])
def test_a_gray_of_16_bits_keeps_its_levels_whatever_range_it_fills(
    form: str, most: int, levels: int, brightest: int
) -> None:
    pixels = decode(written(ramp(most), form), WHOLE)
    assert (len(np.unique(pixels)), pixels.max()) == (levels, brightest)


def test_a_dark_picture_of_12_bits_stays_darker_than_a_bright_one() -> None:
    dark, bright = (decode(written(ramp(most), "PNG"), WHOLE).mean() for most in (1000, 4095))
    assert bright / dark == pytest.approx(4.095, rel=0.03)


def test_a_tiff_that_declares_12_bits_has_12_however_dark() -> None:
    data = written(ramp(4095), "TIFF")
    at = data.index(bytes.fromhex("0201030001000000")) + 8  # bits per sample
    packed = np.full((256, 256), 0x0F0, dtype=np.uint16)  # 240 of 4095
    bits = "".join(f"{v:012b}" for v in packed.ravel())
    pixels = int(bits, 2).to_bytes(len(bits) // 8, "big")
    (offset,) = np.frombuffer(data[data.index(bytes.fromhex("1101040001000000")) + 8 :][:4], "<u4")
    small = data[:at] + b"\x0c\0\0\0" + data[at + 4 : offset] + pixels + b"\0" * (len(data) - offset - len(pixels))
    assert set(np.unique(decode(small, WHOLE))) == {15}


@pytest.mark.parametrize(("most", "brightest"), [(1, 255), (255, 255), (300, 255), (4095, 255), (65535, 255)])
def test_floats_keep_their_levels(most: float, brightest: int) -> None:
    pixels = decode(written(ramp(most, np.float32), "TIFF"), WHOLE)
    assert pixels.max() == brightest
    assert len(np.unique(pixels)) > 200


def test_what_is_no_number_does_not_change_how_the_others_are_scaled() -> None:
    values = ramp(4095, np.float32)
    clean = decode(written(values, "TIFF"), WHOLE)
    values[0, :2] = np.nan, np.inf
    assert np.abs(decode(written(values, "TIFF"), WHOLE)[:, 8:].astype(int) - clean[:, 8:]).max() <= 1


def test_a_backbone_of_before_reads_16_bits_as_it_did() -> None:
    twelve = written(ramp(4095), "PNG")
    assert decode(twelve, Square.of(OLD)).max() == 15
    assert np.array_equal(decode(twelve, Square.of({**OLD, "depth": "values"})), decode(twelve, WHOLE))
    full = written(ramp(65535), "PNG")
    assert np.array_equal(decode(full, Square.of(OLD)), decode(full, WHOLE))


def test_a_new_backbone_records_how_it_reads_depth() -> None:
    assert net.build(BackboneSpec(), []).square.depth == "values"
    assert net.follows(net.build(BackboneSpec(), []).record, BackboneSpec())


# --- size


def test_photographs_of_108_and_200_megapixels_are_decoded_reduced() -> None:
    for size in ((12000, 9000), (16320, 12240)):
        data = saved("RGB", size, "JPEG", quality=60)
        assert decode(data, Square(224)).shape == (3, 224, 224)
        assert shrink(data, 160).shape == (3, 120, 160)


def test_beyond_that_a_jpeg_is_refused_in_words() -> None:
    data = saved("RGB", (16, 16), "JPEG").replace(b"\0\x10\0\x10\x03", b"\xff\xff\xff\xff\x03")
    with pytest.raises(ImageUnreadableError, match=r"65,535×65,535 pixels; the limit is 300,000,000. Store a smaller"):
        decode(data, WHOLE)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_declares_the_size_it_has(form: str) -> None:
    image = declared(saved("RGB", (333, 222), form))
    assert (image.format, image.width, image.height) == (form, 333, 222)


@pytest.mark.parametrize("form", FORMATS)
def test_a_first_part_of_an_image_tells_its_size(form: str) -> None:
    assert sides_of(saved("RGB", (333, 222), form)) == (333, 222)
    assert sides_of(photo(progressive=True)[:1000]) == (320, 240)
    for head in (b"", b"\xff\xd8\xff", saved("RGB", (9, 9), form)[:20], b"%!PS-Adobe-3.0 EPSF-3.0"):
        with pytest.raises(ImageUnreadableError):
            sides_of(head)


def test_images_are_opened_in_one_place_alone() -> None:
    """Pillow's own `open` takes a PostScript for an image, and some of its decoders allocate there."""
    root = Path(labelloop.__file__).parents[1]
    rooms = ("labelloop", "cli", "ml_backend", "sync", "retrain_worker")
    opening = [p for room in rooms for p in (root / room).rglob("*.py") if "Image.open(" in p.read_text()]
    template = root / "retrain_worker/exports/example.py"  # a program for others, which is not run here
    assert opening == [root / "labelloop/decoding/picture.py", template]


def test_frames_after_the_first_are_not_looked_at() -> None:
    frames = [Image.new("RGB", (40, 30), color) for color in ("red", *["blue"] * 200)]
    for form in ("GIF", "WEBP", "PNG", "TIFF", "AVIF"):
        out = io.BytesIO()
        frames[0].save(out, form, save_all=True, append_images=frames[1:])
        red, _, blue = decode(out.getvalue(), Square(8)).reshape(3, -1).mean(axis=1)
        assert (red > 240, blue < 15) == (True, True), form


# --- the end of a JPEG


def photo(**options: object) -> bytes:
    few = np.random.default_rng(3).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(few).resize((320, 240)).save(out, "JPEG", quality=90, **options)  # type: ignore[arg-type]
    return out.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_whose_end_mark_alone_is_missing_is_read_as_if_it_were_there(progressive: bool) -> None:
    whole = photo(progressive=progressive)
    for cut in (whole[:-1], whole[:-2], whole[:-2] + b"\0" * 100):
        for size in (32, 200):
            assert np.array_equal(decode(cut, Square(size)), decode(whole, Square(size)))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_jpeg_that_lacks_a_part_of_its_pixels_is_refused(progressive: bool, share: float) -> None:
    whole = photo(progressive=progressive)
    with pytest.raises(ImageUnreadableError, match="cut off"):
        decode(whole[: int(len(whole) * share)], Square(200))


def test_a_progressive_jpeg_that_ends_between_two_scans_is_refused() -> None:
    whole = photo(progressive=True)
    with pytest.raises(ImageUnreadableError, match="scans are missing"):
        decode(whole[: whole.rindex(b"\xff\xc4")], Square(32))


# --- nothing else has changed

SHAPES = (Square.of({**OLD, "size": 97, "crop": 0.875}), Square.of({**OLD, "size": 30, "crop_mode": "squash"}))
KNOWN = {  # what the release before this test made of them
    "1": ("27b6158af281", "c232f52bffc2"),
    "L": ("9b73cfd11d53", "0787b6d0b992"),
    "LA": ("81a7893ec965", "a2c0bb80a5cb"),
    "P": ("1bacf905a426", "77b1c45976ea"),
    "RGB": ("d92800a09cd7", "a0a40daa1246"),
    "RGBA": ("6c4244681add", "5fd08b44ce83"),
    "CMYK": ("d92800a09cd7", "a0a40daa1246"),
    "I;16": ("9f7689441e90", "d07979e588d1"),
    "F": ("9f7689441e90", "d07979e588d1"),
}


def patterned(mode: str) -> Image.Image:
    y, x = np.mgrid[0:211, 0:317]
    gray = ((x * x + 3 * y * x + y) % 256).astype(np.uint8)
    rgba = np.stack([gray, (x % 256).astype(np.uint8), (y % 256).astype(np.uint8), gray // 2 + 90], 2)
    if mode == "I;16":
        return Image.fromarray(gray.astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray((gray / 255).astype(np.float32))
    if mode == "P":
        image = Image.fromarray(gray // 4)
        image.putpalette([v for i in range(64) for v in (i * 4, 255 - i, i)])
        return image
    return Image.fromarray(rgba).convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_ordinary_images_have_the_pixels_that_they_had_before(mode: str) -> None:
    assert _hashes(mode) == KNOWN[mode]


def _hashes(mode: str) -> tuple[str, ...]:
    out = io.BytesIO()
    patterned(mode).save(out, "TIFF" if mode in {"CMYK", "F"} else "PNG")
    return tuple(hashlib.sha256(decode(out.getvalue(), shape).tobytes()).hexdigest()[:12] for shape in SHAPES)
