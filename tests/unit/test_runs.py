"""Run records: newest first without reading all, found by short names, failures counted since a person's word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labelloop import __version__
from labelloop.errors import NotFoundError
from labelloop.requests import RETRY, RequestStore, retries
from labelloop.runs import AGAIN, Run, RunStore, failures, match, shared
from labelloop.storage import MemoryStore

IDS = [
    "20260301T021500000001-aaaaaa-refresh",
    "20260301T021500000002-bbbbbb-refresh",
    "20260301T030000000000-202603-retrain",
]


def start(store: RunStore, kind: str = "refresh") -> Run:
    return store.start(kind, snapshot="s", config="c", attempt=1, worker="w")


def test_newest_come_first_and_only_as_far_as_asked() -> None:
    store = MemoryStore()
    made = [start(RunStore(store)) for _ in range(70)]
    assert [r.id for r in RunStore(store).newest()] == [r.id for r in reversed(made)]
    store.put(f"runs/{made[0].id}.json", b"broken")
    assert next(RunStore(store).newest()).id == made[-1].id  # the oldest one is not read


def test_a_run_names_the_code_that_ran_it() -> None:
    store = MemoryStore()
    made = start(RunStore(store))
    assert RunStore(store).find(made.id).code == __version__


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("aaaaaa", IDS[0]),
        ("bb", IDS[1]),
        (IDS[2], IDS[2]),
        ("20260301T03", IDS[2]),
        ("20260301T021500000001", IDS[0]),
        ("202603", IDS[2]),  # a whole short id counts more than the beginning of a date
    ],
)
def test_a_run_is_found_by_any_part_that_only_one_has(name: str, found: str) -> None:
    assert match(IDS, name) == found


@pytest.mark.parametrize(
    ("name", "says"), [("20260301T0215", "2 runs begin with"), ("cccc", "labelloop runs"), ("", "no run is called")]
)
def test_a_name_that_means_none_or_several_says_so(name: str, says: str) -> None:
    with pytest.raises(NotFoundError, match=says):
        match(IDS, name)


def test_short_ids_that_two_runs_have_are_known() -> None:
    assert shared(IDS) == set()
    assert shared([*IDS, "20270101T000000000000-aaaaaa-retrain"]) == {"aaaaaa"}


def test_a_run_that_a_pause_held_back_is_not_done() -> None:
    store = RunStore(MemoryStore())
    assert store.end(start(store), "hold", ("w",)).done
    assert not store.end(start(store), "hold", ("w",), detail={AGAIN: True}).done


def test_failures_before_a_persons_word_do_not_count() -> None:
    store, requests = RunStore(MemoryStore()), RequestStore(MemoryStore())
    old = [store.end(start(store), "failed", ("w",)) for _ in range(3)]
    assert failures(old, "refresh", "s") == 3
    assert failures(old, "retrain", "s") == failures(old, "refresh", "other") == 0
    assert retries(requests.open(), "refresh") == []
    one, two = (requests.add(RETRY, by="anna", about="refresh") for _ in range(2))
    wishes = retries(requests.open(), "refresh")
    assert set(wishes) == {one.id, two.id}
    assert retries(requests.open(), "retrain") == []
    assert one.kind == "refresh"
    between = replace(store.end(start(store), "failed", ("w",)), answers=(one.id,))
    since = replace(between, answers=(one.id, two.id))
    assert failures([*old, between, since], "refresh", "s", retries=wishes) == 1
    assert failures([replace(since, snapshot="t")], "refresh", "s", retries=wishes) == 0


def test_wishes_of_older_versions_are_still_read() -> None:
    store = MemoryStore()
    store.put("requests/1.json", b'{"id":"1","what":"retrain","by":"b","at":"t"}')
    assert [(w.what, w.about, w.kind) for w in RequestStore(store).open()] == [("retrain", "", "retrain")]
