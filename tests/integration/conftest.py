"""Real Valkey and a real S3 server on free ports, one of each per test session."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedded.environments import DATABASE, DEFAULT_ROOT, Environments
from embedded.ports import LOOPBACK, pick_port
from embedded.process import ServiceSpec
from embedded.s3.signature import Key
from embedded.services import ServicePlace, s3_service, valkey_service
from embedded.supervisor import Supervisor

VALKEY_PASSWORD = "of-the-tests"
S3_KEY = Key("tests", "secret-of-the-tests")
PROGRAMS = Environments(
    label_studio_bin=DEFAULT_ROOT / "label-studio" / "bin",
    s3_bin=DEFAULT_ROOT / "s3" / "bin",
    database=DEFAULT_ROOT / "label-studio" / DATABASE,
)
KEYS = {"LABELLOOP_S3_ACCESS_KEY": S3_KEY.name, "LABELLOOP_S3_SECRET_KEY": S3_KEY.secret}


@contextmanager
def servers(folder: Path) -> Iterator[tuple[str, str]]:
    """(URL of Valkey, endpoint of S3), outside of pytest."""
    (folder / "valkey").mkdir()
    (folder / "s3").mkdir()
    valkey = contextmanager(_run)(lambda place: valkey_service(place, VALKEY_PASSWORD), folder / "valkey")
    s3 = contextmanager(_run)(lambda place: s3_service(place, S3_KEY, _environments()), folder / "s3")
    with valkey as port, s3 as other:
        yield f"redis://:{VALKEY_PASSWORD}@{LOOPBACK}:{port}/0", f"http://{LOOPBACK}:{other}"


def _environments() -> Environments:
    assert (PROGRAMS.s3_bin / "python").exists(), "the S3 server is not installed: run `make setup`"
    return PROGRAMS


def _run(build: Callable[[ServicePlace], ServiceSpec], directory: Path) -> Iterator[int]:
    place = ServicePlace(directory, pick_port(), directory / "service.log", dict(os.environ))
    supervisor = Supervisor([build(place)], mark=str(directory))
    supervisor.start()
    try:
        supervisor.wait_ready()
        yield place.port
    finally:
        supervisor.stop()


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey server with a password; tests share it: use keys of your own, or flush."""
    directory = tmp_path_factory.mktemp("valkey")
    for port in _run(lambda place: valkey_service(place, VALKEY_PASSWORD), directory):
        yield f"redis://:{VALKEY_PASSWORD}@{LOOPBACK}:{port}/0"


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of an S3 server (`S3_KEY`); tests share it: use buckets of your own."""
    for port in _run(lambda place: s3_service(place, S3_KEY, _environments()), tmp_path_factory.mktemp("s3")):
        yield f"http://{LOOPBACK}:{port}"
