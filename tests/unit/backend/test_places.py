"""Who is let in while others hang: places by project, lookups that end, and threads of one's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from flask.testing import FlaskClient

from labelloop.config.settings import load_settings
from labelloop.errors import StorageError
from labelloop.objects.storage import MemoryStore
from ml_backend.app import make_app
from ml_backend.auth import AccessGate
from ml_backend.backend import Backend
from ml_backend.contract import RequestError
from ml_backend.entrance.turns import Turnstile, end_turn, turn
from ml_backend.live import READERS
from ml_backend.places import PLACES, STILL_S, Places
from ml_backend.projects import KEEP_S, LOOKUP_S, UNKNOWN_LOOKUPS, Directory
from tests.unit.worlds.backend import FakeReader, World, make_backend, picture

QUICK_S = 0.2  # beside other tests on a busy machine


class Hanging(MemoryStore):
    """Storage that takes a request for some keys and never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs, self._goes_on = "", threading.Event()
        self.asked = 0

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        if self.hangs and self.hangs in key:
            self.asked += 1
            self._goes_on.wait(30)
            raise StorageError("timed out")
        return super().get_with_etag(key)

    def let_go(self) -> None:
        self._goes_on.set()


class Reading(FakeReader):
    """Images that hang, by a part of their address."""

    goes_on = threading.Event()

    def read(self, uri: str) -> tuple[bytes, str]:
        if "hang" in uri:
            self.goes_on.wait(30)
            raise StorageError("timed out")
        return super().read(uri)


@pytest.fixture
def store() -> Iterator[Hanging]:
    hanging = Hanging()
    yield hanging
    hanging.let_go()


@contextmanager
def taken(places: Places, key: str, count: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(places.place(key))
        yield


def entered(places: Places, key: str) -> bool:
    try:
        with places.place(key):
            return True
    except RequestError as error:
        assert error.status == 503
        return False


def test_a_project_that_fills_its_places_takes_no_others() -> None:
    places = Places(places=2, waiting=1, still_s=0.05)
    with taken(places, "one", 2):
        assert not entered(places, "one")
        assert entered(places, "two")
    assert entered(places, "one")


def test_where_nothing_moves_nobody_waits() -> None:
    places = Places(places=1, waiting=8, still_s=0.2)
    with taken(places, "one", 1):
        time.sleep(0.25)
        begun = time.monotonic()
        assert not entered(places, "one")
        assert time.monotonic() - begun < 0.1


def test_where_somebody_leaves_soon_the_next_one_waits_for_that() -> None:
    places = Places(places=1, waiting=1, still_s=5.0)
    with ThreadPoolExecutor(1) as pool:
        with taken(places, "one", 1):
            second = pool.submit(entered, places, "one")
            time.sleep(0.05)
            assert not entered(places, "one"), "a third one has no room to wait in"
        assert second.result(5)


def test_who_comes_back_at_once_stands_behind_those_who_wait() -> None:
    places, order = Places(places=1, waiting=8, still_s=5.0), []

    def enter(name: str) -> None:
        with places.place("one"):
            order.append(name)

    with ThreadPoolExecutor(8) as pool:
        with taken(places, "one", 1):
            waiting = [pool.submit(enter, "patient") for _ in range(3)]
            wait_until(lambda: len(places._rooms["one"].line) == 3)
        enter("again")
        for one in waiting:
            one.result(5)
    assert order == ["patient"] * 3 + ["again"]


def test_nobody_waits_for_ever_where_others_come_and_go() -> None:
    places = Places(places=2, still_s=5.0, wait_s=0.3)
    with taken(places, "one", 2), ThreadPoolExecutor(1) as pool:
        begun = time.monotonic()
        assert not pool.submit(entered, places, "one").result(5)
        assert 0.2 < time.monotonic() - begun < 3


def test_rooms_that_nobody_uses_are_forgotten() -> None:
    places = Places()
    assert all(entered(places, str(n)) for n in range(100))
    assert places._rooms == {}


def test_a_known_project_is_found_while_its_storage_hangs(store: Hanging) -> None:
    world = World(store)
    directory = Directory(world.projects)
    assert directory.find(world.record.reference) == world.record
    store.hangs = "index/"
    time.sleep(KEEP_S)
    begun = time.monotonic()
    assert [directory.find(world.record.reference) for _ in range(20)] == [world.record] * 20
    assert time.monotonic() - begun < LOOKUP_S + QUICK_S, "only the first one waits, and not for long"
    assert store.asked == 1


def test_an_unknown_project_is_told_to_come_back_and_takes_no_known_ones_turn(store: Hanging) -> None:
    world, other = World(store), World(store, number=8)
    directory = Directory(world.projects)
    assert directory.find(world.record.reference) == world.record
    store.hangs = "-99"
    with ThreadPoolExecutor(40) as pool:
        begun = time.monotonic()
        lookups: list[Future[object]] = [pool.submit(directory.find, f"99{n}.1") for n in range(UNKNOWN_LOOKUPS * 4)]
        assert all(isinstance(a.exception(5), StorageError) for a in lookups)
        assert time.monotonic() - begun < LOOKUP_S + 2 * QUICK_S
        time.sleep(KEEP_S)
        assert directory.find(world.record.reference) == world.record
    store.let_go()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            assert directory.find(other.record.reference) == other.record
            return
        except StorageError:
            time.sleep(0.05)
    pytest.fail("a new project was never found")


@pytest.fixture
def two(store: Hanging) -> Iterator[tuple[World, World, Backend, FlaskClient]]:
    """Two projects with a model each, both loaded."""
    first, second = World(store), World(store, number=8)
    for world in (first, second):
        world.deploy(world.add(world.backbone(), answer=1))
    Reading.goes_on.clear()
    backend = make_backend(first, Reading({f"s3://images/other/{n}.png": picture(n) for n in range(40)}))
    backend.start()
    client = make_app(backend, AccessGate(load_settings({}))).test_client()
    end = time.monotonic() + 30
    while client.get("/ready").status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.02)
    yield first, second, backend, client
    Reading.goes_on.set()
    store.let_go()
    backend.stop()


def ask(client: FlaskClient, world: World, uri: str, count: int = 1) -> int:
    tasks = [{"id": 1, "data": {"image": uri}}] * count
    body = {"tasks": tasks, "project": world.record.reference, "label_config": ""}
    return client.post("/predict", json=body).status_code


def test_images_that_hang_hold_up_their_own_project_alone(two: tuple[World, World, Backend, FlaskClient]) -> None:
    first, second, backend, _ = two
    app = make_app(backend, AccessGate(load_settings({})))
    with ThreadPoolExecutor(PLACES) as pool:
        stuck = [pool.submit(ask, app.test_client(), first, "s3://images/hang.png", READERS) for _ in range(PLACES)]
        time.sleep(STILL_S + 0.2)
        begun = time.monotonic()
        assert ask(app.test_client(), first, "s3://images/other/0.png") == 503
        assert time.monotonic() - begun < QUICK_S
        assert [ask(app.test_client(), second, f"s3://images/other/{n}.png") for n in range(5)] == [200] * 5
        assert app.test_client().get("/health").status_code == 200
        Reading.goes_on.set()
        assert {s.result(20) for s in stuck} == {503}
    assert ask(app.test_client(), first, "s3://images/other/0.png") == 200


def test_a_log_that_hangs_holds_up_no_other_projects_models(
    two: tuple[World, World, Backend, FlaskClient], store: Hanging
) -> None:
    first, second, backend, client = two
    store.hangs = f"projects/{first.record.key}/"
    time.sleep(0.2)
    version = second.add(second.backbone(24), answer=2)
    second.deploy(version)
    end = time.monotonic() + 10
    while backend.live.facts()[second.record.key]["version"] != version.name:
        assert time.monotonic() < end, "its new version never went live"
        time.sleep(0.02)
    begun = time.monotonic()
    setup = {"project": first.record.reference, "schema": first.record.label_config}
    assert client.post("/setup", json=setup).get_json() == {"model_version": "v1"}
    assert time.monotonic() - begun < QUICK_S


def test_setup_of_a_project_that_cannot_be_loaded_keeps_within_label_studios_time(store: Hanging) -> None:
    world = World(store)
    world.deploy(world.add(world.backbone(), answer=1))
    store.hangs = f"projects/{world.record.key}/"
    backend = make_backend(world, FakeReader())
    backend.start()
    app = make_app(backend, AccessGate(load_settings({})))
    body = {"project": world.record.reference, "schema": world.record.label_config}

    def setup() -> float:
        begun = time.monotonic()
        assert app.test_client().post("/setup", json=body).status_code == 200
        return time.monotonic() - begun

    try:
        with ThreadPoolExecutor(20) as pool:
            took = sorted(pool.map(lambda _: setup(), range(20)))
        assert took[-1] < 3
        assert took[10] < 1, "only a few wait for the model"
    finally:
        store.let_go()
        backend.stop()


def test_the_turn_goes_on_in_order_and_none_overtakes() -> None:
    gate, order = Turnstile(), []
    gate.acquire()

    def come(number: int) -> None:
        gate.acquire()
        order.append(number)
        gate.release()

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=come, args=(number,)))
        threads[-1].start()
        wait_until(lambda number=number: len(gate._line) == number + 1)  # type: ignore[misc]
    gate.release()
    come(5)
    for thread in threads:
        thread.join(5)
    assert order == [0, 1, 2, 3, 4, 5]


def test_who_waits_has_no_turn_any_more() -> None:
    with ThreadPoolExecutor(1) as pool, turn():
        end_turn()
        assert pool.submit(lambda: turn().__enter__() is None and end_turn() is None).result(5)


def wait_until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)
