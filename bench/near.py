"""`python -m bench.near --images DIR`: edited copies that are found, frames of a fixed camera that are told apart.

Both kinds of error of `labelloop.likeness`, on photographs of a folder. Cameras are
made up: one photograph each, with noise in rows and pixels, drifting light, JPEG, and in every other frame a defect.
Then the time to find candidates among up to 100,000 images. One JSON line a figure, for CPU seconds of one process.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps
from rich.console import Console
from rich.table import Table

from labelloop.decoding.square import Pixels
from labelloop.likeness.near import NEAR, hash_of
from labelloop.likeness.proof import IDENTITY, Kinship, kinship
from labelloop.likeness.windows import WINDOWS, WindowIndex, middle_hash, thumb_of, window_words

FRAMES, SIZES = 12, (1_000, 10_000, 100_000)
ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
Edit = Callable[[Image.Image], Image.Image]


def _recoded(image: Image.Image, quality: int) -> Image.Image:
    return Image.open(io.BytesIO(_bytes(image, quality)))


def _cropped(image: Image.Image, share: float) -> Image.Image:
    across, down = image.width * share, image.height * share
    return image.crop((round(0.3 * across), round(0.6 * down), round(image.width - 0.7 * across),
                       round(image.height - 0.4 * down)))  # fmt: skip


def _shifted(image: Image.Image, share: float) -> Image.Image:
    right, down = image.width * share, -image.height * share / 2
    return image.transform(image.size, Image.Transform.AFFINE, (1, 0, right, 0, 1, down), Image.Resampling.BILINEAR)


EDITS: dict[str, Edit] = {
    "half the size": lambda i: i.resize((i.width // 2, i.height // 2), Image.Resampling.LANCZOS),
    "JPEG, quality 30": lambda i: _recoded(i, 30),
    "darker by a fifth": lambda i: ImageEnhance.Brightness(i).enhance(0.8),
    "lighter by a fifth": lambda i: ImageEnhance.Brightness(i).enhance(1.2),
    "gray": lambda i: i.convert("L").convert("RGB"),
    "blurred": lambda i: i.filter(ImageFilter.GaussianBlur(1)),
    "shifted by 1 %": lambda i: _shifted(i, 0.01), "shifted by 2 %": lambda i: _shifted(i, 0.02),
    "shifted by 5 %": lambda i: _shifted(i, 0.05),
    "turned by 1°": lambda i: i.rotate(-1, Image.Resampling.BICUBIC),
    "turned by 2°": lambda i: i.rotate(2, Image.Resampling.BICUBIC),
    "turned by 3°": lambda i: i.rotate(-3, Image.Resampling.BICUBIC),
    "cropped by 3 %": lambda i: _cropped(i, 0.03), "cropped by 5 %": lambda i: _cropped(i, 0.05),
    "cropped by 8 %": lambda i: _cropped(i, 0.08),
    "border of 4 %": lambda i: ImageOps.expand(i, (round(i.width * 0.04), round(i.height * 0.04))),
    "border of 8 %": lambda i: ImageOps.expand(i, (round(i.width * 0.08), round(i.height * 0.08))),
    "mirrored": ImageOps.mirror,
}  # fmt: skip


def frames(image: Image.Image, seed: int) -> list[tuple[Pixels, float]]:
    """(thumbnail, share of the area that is changed) of one camera."""
    rng = np.random.default_rng(seed)
    still = np.asarray(image.convert("RGB").resize((400, 300), Image.Resampling.LANCZOS), dtype=np.float32)
    taken = []
    for number in range(FRAMES):
        area = float(rng.choice([0.003, 0.006, 0.012, 0.026])) if number % 2 else 0.0
        picture = _damaged(still, area, rng) if area else still
        light = rng.uniform(0.95, 1.05) + np.linspace(-1, 1, 400)[None, :, None] * rng.uniform(-0.03, 0.03)
        rows = rng.normal(0, 1.5, (300, 1, 1))  # banding
        noisy = rng.poisson(np.clip(picture * light, 0, 255) * 1.5) / 1.5 + rows + rng.normal(0, 2, picture.shape)
        frame = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
        taken.append((thumb_of(_bytes(frame, 85)), area))
    return taken


def _damaged(still: NDArray[np.float32], area: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """A spot or a scratch with a soft edge, 25 to 70 gray levels lighter or darker than what it covers."""
    high, wide = still.shape[:2]
    mask, size = Image.new("L", (wide, high)), area * high * wide
    x, y = rng.uniform(0.15, 0.85) * wide, rng.uniform(0.15, 0.85) * high
    if rng.random() < 0.5:
        radius = np.sqrt(size / np.pi)
        ImageDraw.Draw(mask).ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    else:
        length, turn = np.sqrt(size * 4), rng.uniform(0, np.pi)
        ends = (x, y, x + length * np.cos(turn), y + length * np.sin(turn))
        ImageDraw.Draw(mask).line(ends, fill=255, width=max(2, round(size / length)))
    soft = cv2.GaussianBlur(np.asarray(mask, dtype=np.float32) / 255, (0, 0), 1)[:, :, None]
    under = float((still * soft).sum() / (3 * soft.sum()))
    return np.asarray(still + soft * rng.uniform(25, 70) * (-1 if under > 127 else 1), dtype=np.float32)


def pair(one: Pixels, other: Pixels) -> tuple[bool, Kinship]:
    """(whether the index finds the one by the other, what the proof says)."""
    index = WindowIndex()
    index.add([("other", middle_hash(other))])
    hits = index.near(window_words(one))
    if not hits:
        return False, Kinship.STRANGER
    window = hits[0].window
    starts = (window.guess, IDENTITY)
    return True, kinship(one.astype(np.float32), other.astype(np.float32), starts, mirror=window.mirrored)


def _bytes(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=quality)
    return out.getvalue()


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.convert("RGB").save(out, "PNG")
    return out.getvalue()


def edited(photographs: list[Image.Image], console: Console) -> None:
    """Of every edit, how many are found and proven."""
    table = Table("edit", "hash ≤ 20 bits", "candidate", "proven", "ms a pair", box=None)
    for name, edit in EDITS.items():
        thumbs = [(thumb_of(_png(image)), thumb_of(_png(edit(image)))) for image in photographs]
        began = time.process_time()
        found = [pair(copy, whole) for whole, copy in thumbs]
        cost = 1000 * (time.process_time() - began) / len(found)
        wanted = Kinship.MIRRORED if name == "mirrored" else Kinship.SAME
        shares = [
            float(np.mean([_bits(*pair_) <= NEAR for pair_ in thumbs])), float(np.mean([seen for seen, _ in found])),
            float(np.mean([kin is wanted for _, kin in found])),
        ]  # fmt: skip
        table.add_row(name, *(f"{share:.2f}" for share in shares), f"{cost:.0f}")
        print(json.dumps({"edit": name, "hash": shares[0], "candidate": shares[1], "proven": shares[2], "ms": cost}))
    console.print(table)


def _bits(one: Pixels, other: Pixels) -> int:
    return (int(hash_of(one), 16) ^ int(hash_of(other), 16)).bit_count()


def cameras(photographs: list[Image.Image], seed: int) -> None:
    """False proofs among changed frames, beside today's hash."""
    verdicts, hashes, quiet, pairs = Counter[str](), 0, Counter[str](), 0
    for number, image in enumerate(photographs):
        taken = frames(image, seed + number)
        for i, (one, area) in enumerate(taken):
            for other, other_area in taken[:i]:
                _, kin = pair(one, other)
                if area or other_area:
                    verdicts[kin] += 1
                    hashes += _bits(one, other) <= NEAR
                    pairs += 1
                else:
                    quiet[kin] += 1
    print(json.dumps({"cameras": len(photographs), "changed pairs": pairs, "proven the same": verdicts[Kinship.SAME],
                      "hash says the same": hashes, "verdicts": verdicts, "unchanged": quiet}))  # fmt: skip


def strangers(photographs: list[Image.Image]) -> None:
    """Unrelated photographs that become candidates, and those of them that are taken for relatives."""
    thumbs = [thumb_of(_png(image)) for image in photographs]
    found = [pair(one, other) for i, one in enumerate(thumbs) for other in thumbs[:i]]
    print(json.dumps({"unrelated pairs": len(found), "candidates": sum(seen for seen, _ in found),
                      "verdicts": Counter(kin for seen, kin in found if seen)}))  # fmt: skip


def search(photographs: list[Image.Image]) -> None:
    """Seconds of finding candidates: of a query, and of all images as they come one by one."""
    words = [window_words(thumb_of(_png(image))) for image in photographs[:10]]
    rng, index, known, total = np.random.default_rng(0), WindowIndex(), 0, 0.0
    for size in SIZES:
        rows = rng.integers(0, 256, (size - known, 32), dtype=np.uint8)
        before = _query_s(index, words)
        index.add((str(known + i), row.tobytes().hex()) for i, row in enumerate(rows))
        after = _query_s(index, words)
        total += (size - known) * (before + after) / 2  # the cost grows with the line
        known = size
        print(json.dumps({"images": size, "windows": len(WINDOWS), "ms a query": 1000 * after, "s for all": total}))


def _query_s(index: WindowIndex, words: list[NDArray[np.uint64]]) -> float:
    began = time.process_time()
    for one in words:
        index.near(one)
    return (time.process_time() - began) / len(words)


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--photographs", type=int, default=40)
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--seed", type=int, default=2027)
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    paths = sorted(path for path in asked.images.rglob("*") if path.suffix.lower() in ENDINGS)
    chosen = np.random.default_rng(asked.seed).choice(len(paths), asked.photographs, replace=False)
    photographs = [Image.open(paths[i]).convert("RGB") for i in chosen]
    edited(photographs, Console())
    strangers(photographs)
    cameras(photographs[: asked.cameras], asked.seed)
    search(photographs)


if __name__ == "__main__":
    main()
