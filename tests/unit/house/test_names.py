"""Names that other people chose: what cannot be carried is told, what would steer a terminal is made harmless."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

import retrain_worker.jobs
from bench.watcher import World as Watched
from labelloop.errors import NotFoundError, StorageError, StudioError
from labelloop.names import harmless, shown, unfit
from labelloop.studio.client import StudioProject
from labelloop.studio.words import json_of, message_in
from operations.projects.imagefolder import NOT_UTF8, left_out, scan
from operations.projects.setup import open_source
from tests.unit.worlds.backend import PREFIX, FakeReader, World, make_backend, picture


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("p/\udcff.png", "UTF-8"), ("p/\ufffd.png", "UTF-8"), ("p/a\nb.png", "line break"), ("p/a\x00.png", "control"),
        ("p/a\u2028.png", "line break"), ("p/a?.png", "?"), ("/a.png", "begins with"), ("p/../a.png", ".."),
        ("p/" + "x" * 1024, "longer"),
    ],
)  # fmt: skip
def test_a_name_that_is_lost_on_the_way_says_why(key: str, why: str) -> None:
    assert why in str(unfit(key))


@pytest.mark.parametrize(
    "key", ["p/a b#c%2f;d.png", "p/é.png", "p/e\u0301.png", "p/A.PNG", "p//a.png", "p/🐈.png", "..a"]
)
def test_other_names_are_carried(key: str) -> None:
    assert unfit(key) is None


def test_nothing_that_is_shown_steers_a_terminal() -> None:
    assert harmless("a\x1b[31mb\x07\u202ec\nd\te") == "a�[31mb��c\nd\te"
    assert shown("a\nb\udcff") == r"'a\nb\udcff'"
    assert len(shown("x" * 5000)) < 130


def test_files_whose_names_are_not_utf8_are_left_out_and_told(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for name in (b"cat/1.png", b"cat/\xff\xfe.png", b"dog/2\n.png", "dog/é.png".encode(), "dog/e\u0301.png".encode()):
        path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(1))
    files = scan(folder, "pets/")
    assert len({f.key for f in files}) == 4
    assert all(unfit(f.key) is None for f in files)
    assert {why: n.count for why, n in left_out(folder).items()} == {NOT_UTF8: 1}
    assert len(open_source(tmp_path, folder, None, None).left_out) == 1


def test_a_task_with_an_address_that_is_no_text_gets_an_empty_prediction_alone() -> None:
    world = World()
    reader = FakeReader({PREFIX + "1.png": picture(1)})
    world.deploy(world.add(world.backbone(), 1))
    backend = make_backend(world, reader)
    backend.start()
    uris = [PREFIX + "1.png", PREFIX + "\ud800.png", PREFIX + "a\nb.png", "\udcff", "https://h/\ud800.png"]
    try:
        results = backend.predict(
            world.record.reference, "", [{"id": i, "data": {"image": u}} for i, u in enumerate(uris)]
        )
    finally:
        backend.stop()
    assert [bool(r["result"]) for r in results] == [True, False, False, False, False]


def test_an_answer_of_label_studio_holds_nothing_that_cannot_be_written() -> None:
    request = httpx.Request("GET", "http://studio/api/x?token=secret")
    answer = httpx.Response(
        200, content=rb'{"title": "\ud800x", "list": ["\udfff"], "ok": "\ud83d\ude00"}', request=request
    )
    assert json_of(answer, "api/x") == {"title": "�x", "list": ["�"], "ok": "😀"}
    for content in (b"<html>", b"", b"\xff", b"[" * 100_000):
        with pytest.raises(StudioError, match="LABELLOOP_STUDIO_URL") as caught:
            json_of(httpx.Response(200, content=content, request=request), "api/x")
        assert "secret" not in str(caught.value)
    assert message_in('{"id": "5", "detail": "No Project", "version": "1"}') == "No Project"
    assert message_in("<html><title>Bad gateway</title><p>x</html>") == "Bad gateway"


def test_a_deleted_project_is_told_as_that_and_a_renamed_one_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = Watched(50)
    world.watch._deps.projects.put(world.watch.project)
    world.watch.turn(nudged=True)
    key, number, created = world.watch.project.key, world.watch.project.id, world.watch.project.created
    index = world.watch.index
    renamed = StudioProject(number, "new", created, world.watch.project.label_config, None, "", 1)
    monkeypatch.setattr(world.studio, "project", lambda _number: renamed)
    world.watch._follow_label_config()
    assert world.watch.facts()["title"] == "new"
    assert world.watch._deps.projects.get(key).title == "new"
    assert world.watch.index is index

    def gone(*_: object) -> None:
        raise StudioError("not found", status=404)

    monkeypatch.setattr(world.studio, "changes", gone)
    with pytest.raises(StudioError, match="not found"):  # the project itself is there
        world.watch.turn(nudged=True)
    monkeypatch.setattr(world.studio, "project", gone)
    with pytest.raises(StudioError, match=f"deleted in Label Studio: `labelloop forget {key}`"):
        world.watch.turn(nudged=True)


def test_a_job_of_a_forgotten_project_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        error: Exception = NotFoundError("gone")

        def project(self, _key: str) -> None:
            raise self.error

    context = Context()
    monkeypatch.setattr(retrain_worker.jobs, "context", lambda: context)
    for job, words in ((retrain_worker.jobs.featurise, ([],)), (retrain_worker.jobs.retrain, ("s", 1)),
                       (retrain_worker.jobs.score, ("v1",)), (retrain_worker.jobs.tidy, ())):  # fmt: skip
        assert job("main-1-1", *words) == {"forgotten": True}
    context.error = StorageError("away")
    with pytest.raises(StorageError):
        retrain_worker.jobs.tidy("main-1-1")


@pytest.mark.parametrize("levels", [400, 700, 900])
def test_an_answer_that_is_nested_deeply_is_read_with_its_halves_of_characters(levels: int) -> None:
    content = b'{"\\udc00": ' + b"[" * levels + b'"\\ud800"' + b"]" * levels + b"}"
    data = json_of(httpx.Response(200, content=content, request=httpx.Request("GET", "http://x/")), "api/x")
    held = data["\ufffd"]
    for _ in range(levels):
        (held,) = held
    assert held == "\ufffd"
