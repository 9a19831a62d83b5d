"""A loop that shows no sign of life is ended, once; one that does is not."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

from sync.watchdog import STUCK, Watchdog
from tests.fakes.clock import Clock


def watched(clock: Clock) -> tuple[Watchdog, threading.Event]:
    ended = threading.Event()
    dog = Watchdog(300, look_s=0.001, end=ended.set, clock=clock)
    dog.start()
    return dog, ended


def test_no_sign_of_life_ends_the_process() -> None:
    clock = Clock()
    _, ended = watched(clock)
    clock.now = 299
    assert not ended.wait(0.05)
    clock.now = 301
    assert ended.wait(5)


def test_every_sign_gives_as_long_again_and_a_long_request_its_own_time() -> None:
    clock = Clock()
    dog, ended = watched(clock)
    clock.now = 299
    dog.alive()
    clock.now = 598
    dog.alive(1800)
    clock.now = 598 + 2099
    assert not ended.wait(0.05)
    clock.now += 2
    assert ended.wait(5)


def test_one_that_was_stopped_ends_nothing() -> None:
    clock = Clock()
    dog, ended = watched(clock)
    dog.stop()
    time.sleep(0.05)
    clock.now = 1000
    assert not ended.wait(0.05)


def test_the_process_ends_with_its_stacks_though_its_loop_hangs() -> None:
    code = (
        "from sync.watchdog import Watchdog\n"
        "Watchdog(0.1, look_s=0.01).start()\n"
        "def hang():\n"
        "    while True: pass\n"
        "hang()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == STUCK
    assert "in hang" in ended.stderr
