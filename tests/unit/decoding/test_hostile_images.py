"""Images that mean harm cost themselves: no exception but the one, no memory and no time beyond what is allowed."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from labelloop.decoding import apart
from labelloop.decoding import square as decoding
from labelloop.decoding.apart import Helpers
from labelloop.decoding.budget import Budget
from labelloop.decoding.declared import Declared, declared
from labelloop.decoding.square import LARGE, Square, decode, is_costly
from labelloop.errors import DecodersBusyError, ImageUnreadableError
from tests.hostile.mutants import mutants, originals
from tests.hostile.worst import WORST, chunk, png, saved, scans, webp

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow warns of what it finds in broken files
SQUARE = Square(64)
MUTANTS = 400  # `python -m bench.faults.hostile_images` makes thousands


def drawn(seed: int, size: tuple[int, int] = (96, 70)) -> Image.Image:
    few = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(few).resize(size, Image.Resampling.BICUBIC)


def test_every_good_original_is_read() -> None:
    good = originals([drawn(n) for n in range(3)])
    unread = []
    for data in good:
        try:
            assert decode(data, SQUARE).shape == (3, 64, 64)
        except ImageUnreadableError as error:
            unread.append(f"{declared(data).format}: {error}")
    assert len(good) > 70
    assert len(unread) <= 4, unread  # Pillow cannot convert LAB
    assert all("LAB" in why for why in unread)


def test_mutated_images_are_read_or_refused() -> None:
    good = originals([drawn(n) for n in range(3)])
    outcomes = {True: 0, False: 0}
    for data in mutants(good, MUTANTS, seed=0):
        try:
            assert decode(data, SQUARE).shape == (3, 64, 64)
            outcomes[True] += 1
        except ImageUnreadableError as error:
            assert str(error)
            outcomes[False] += 1
    assert min(outcomes.values()) > MUTANTS / 10, outcomes


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (webp(16383, 5400), "16,383×5,400.*384 MB.*smaller copy"),
        (WORST["png-ten-billion"](), "100,000×100,000"),
        (png(16, 16, 2, before=chunk(b"teSt") * 60_000), "50,000 chunks"),
        (WORST["tiff-huge-tile"](), "384 MB"),
        (scans((64, 64), 300), "300 scans; the limit is"),
        (b"\xff\xd8" + b"\xff\xe5\x00\x02" * 5000, "segments"),
        (WORST["gif-largest"](), "65,535×65,535"),
        (WORST["gif-million-blocks"](), "blocks"),
        (b"P3\n9 9\n255\n" + b"1 " * 243, "unknown format; JPEG, PNG"),
        (b"BM" + b"\0" * 12 + b"\x28\0\0\0" + b"\xff\xff\xff\x7f" * 2 + b"\x01\0\x18\0" + b"\0" * 40, "2,147,483,647"),
        (png(16, 16, 0).replace(b"\0\0\0\x10\0\0\0\x10", b"\0" * 8), "0×0"),
    ],
    ids=["webp", "png", "chunks", "tile", "scans", "segments", "gif", "blocks", "ppm", "bmp", "nothing"],
)
def test_what_declares_too_much_is_refused_at_once_and_in_words(data: bytes, words: str) -> None:
    began = time.process_time()
    with pytest.raises(ImageUnreadableError, match=words):
        decode(data, SQUARE)
    assert time.process_time() - began < 1


def test_one_that_declares_less_than_it_has_is_stopped_by_the_memory_it_gets() -> None:
    large = saved("RGB", (6000, 6000), "TIFF", compression="tiff_lzw")
    false = Declared("TIFF", 6000, 6000, held=0, apart=True)
    with closing(Helpers(1)) as helpers, pytest.raises(ImageUnreadableError, match="memory"):
        helpers.render(large, false, SQUARE, 0, 1.0)


def test_one_that_takes_too_long_ends_its_own_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "CPU_S", 0.0)  # seconds are whole: one, at most
    helpers = Helpers(1)
    slow = WORST["bmp-run-lengths"]()
    with pytest.raises(ImageUnreadableError, match="takes more than"):
        helpers.render(slow, declared(slow), SQUARE, LARGE, 1.0)
    good = saved("RGB", (32, 32), "TIFF")
    monkeypatch.setattr(apart, "CPU_S", 10.0)
    assert helpers.render(good, declared(good), SQUARE, 10**6, 1.0).shape == (64, 64, 3)
    helpers.close()


@pytest.mark.parametrize("waited", [False, True], ids=["a moment ago", "long ago"])
def test_a_helper_that_has_gone_is_replaced_and_leaves_nothing_open(waited: bool) -> None:
    helpers, good = Helpers(1), saved("RGB", (32, 32), "TIFF")
    for _ in range(2):
        assert helpers.render(good, declared(good), SQUARE, 10**6, 1.0).shape == (64, 64, 3)
        process = helpers._free.queue[0]
        process.kill()
        process.stdout.read()  # until it is gone
        if waited:
            process.wait()
    assert helpers.render(good, declared(good), SQUARE, 10**6, 1.0).shape == (64, 64, 3)
    assert process.stdin.closed
    assert process.stdout.closed
    helpers.close()


def test_helpers_hold_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELLOOP_S3_SECRET_KEY", "of-the-test")
    helpers, good = Helpers(1), saved("RGB", (32, 32), "TIFF")
    helpers.render(good, declared(good), SQUARE, 10**6, 1.0)
    process = helpers._free.queue[0]
    with open(f"/proc/{process.pid}/environ", "rb") as environment:  # noqa: PTH123
        assert b"of-the-test" not in environment.read()
    helpers.close()


# --- the budget


@pytest.fixture
def budget() -> Budget:
    return Budget(100, large=80, small=10)


def test_small_images_pass_while_large_ones_wait(budget: Budget) -> None:
    with budget.hold(80, 0):
        with pytest.raises(DecodersBusyError, match="busy"), budget.hold(20, 0.01):
            pass
        with budget.hold(10, 0), budget.hold(10, 0):
            pass
    with budget.hold(80, 0):
        pass


def test_never_more_than_allowed_is_held_and_everybody_gets_a_turn(budget: Budget) -> None:
    held, most, lock = [0], [0], threading.Lock()

    def use(amount: int) -> None:
        for _ in range(30):
            with budget.hold(amount, 30):
                with lock:
                    held[0] += amount
                    most[0] = max(most[0], held[0])
                time.sleep(0.0005)
                with lock:
                    held[0] -= amount

    threads = [threading.Thread(target=use, args=(amount,)) for amount in (80, 60, 40, 30, 10, 9, 8, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 80 < most[0] <= 100


def test_the_largest_waits_for_no_second_one_that_came_after_it(budget: Budget) -> None:
    order: list[int] = []

    def use(amount: int) -> None:
        with budget.hold(amount, 10):
            order.append(amount)

    with budget.hold(50, 0):
        first = threading.Thread(target=use, args=(80,))
        first.start()
        while not budget._queue:
            time.sleep(0.001)
        second = threading.Thread(target=use, args=(20,))
        second.start()
        time.sleep(0.02)
        assert order == []
    first.join()
    second.join()
    assert order == [80, 20]


def test_all_threads_of_a_process_share_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    mine = Budget(10**9, large=10**9, small=10**9)
    monkeypatch.setattr(decoding._process, "budget", mine)
    monkeypatch.setattr(decoding, "render", lambda *_: held.append(mine._held) or np.zeros((64, 64, 3), np.uint8))
    data = saved("RGB", (100, 100), "PNG")
    decode(data, SQUARE)
    assert held == [100 * 100 * 5 + 2 * len(data)]
    assert mine._held == 0


# --- what needs a helper


@pytest.fixture(scope="module")
def sizes() -> Iterator[dict[str, bytes]]:
    yield {
        "photo": saved("RGB", (4000, 3000), "JPEG"),
        "progressive": saved("RGB", (4000, 3000), "JPEG", progressive=True),
        "scan": saved("RGB", (3000, 3000), "PNG"),
    }


def test_photographs_of_phones_are_decoded_by_the_thread_that_asks(sizes: dict[str, bytes]) -> None:
    assert [is_costly(sizes[n], Square(224)) for n in ("photo", "progressive", "scan")] == [False, True, True]


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_what_is_held_is_no_more_than_was_weighed(form: str, mode: str) -> None:
    """A helper is given so much memory and not more, so this would fail where the formula is too low."""
    if (form, mode) in {("JPEG", "RGBA"), ("JPEG", "P"), ("BMP", "RGBA")}:
        return
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.new(mode, (6000, 4000)).save(out, form, exif=exif, progressive=True)
    data = out.getvalue()
    image = declared(data)
    helpers = Helpers(1)
    pixels = helpers.render(
        data, image, Square(600), max(image.needs(600) - 50_000_000, 0), 10.0
    )  # less most of the slack
    assert pixels.shape == (600, 600, 3)
    helpers.close()
