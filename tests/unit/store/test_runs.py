"""Run records: newest first without reading all, found by short names, failures counted since a person's word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labelloop.code import code_version, training_code
from labelloop.errors import NotFoundError
from labelloop.objects.storage import MemoryStore
from labelloop.records.runs import AGAIN, TRANSIENT, Run, match, shared
from labelloop.rules.attempts import begun, failed_tries
from labelloop.store.requests import RETRY, RequestStore, retries
from labelloop.store.runs import RunStore

IDS = [
    "20260301T021500000001-aaaaaa-refresh",
    "20260301T021500000002-bbbbbb-refresh",
    "20260301T030000000000-202603-retrain",
]


def start(store: RunStore, kind: str = "refresh") -> Run:
    return store.start(kind, snapshot="s", config="c", attempt=1, worker="w")


def test_newest_come_first_and_only_as_far_as_asked() -> None:
    store = MemoryStore()
    runs = [start(RunStore(store)) for _ in range(70)]
    assert [r.id for r in RunStore(store).newest()] == [r.id for r in reversed(runs)]
    store.put(f"runs/{runs[0].id}.json", b"broken")
    assert next(RunStore(store).newest()).id == runs[-1].id  # the oldest one is not read


def test_a_run_names_the_code_that_ran_it() -> None:
    store = MemoryStore()
    begun_run = start(RunStore(store))
    record = RunStore(store).find(begun_run.id)
    assert (record.code, record.training) == (code_version(), training_code())


@pytest.mark.parametrize(
    ("name", "run_id"),
    [
        ("aaaaaa", IDS[0]),
        ("bb", IDS[1]),
        (IDS[2], IDS[2]),
        ("20260301T03", IDS[2]),
        ("20260301T021500000001", IDS[0]),
        ("202603", IDS[2]),  # a whole short id counts more than the beginning of a date
    ],
)
def test_a_run_is_found_by_any_part_that_only_one_has(name: str, run_id: str) -> None:
    assert match(IDS, name) == run_id


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
    assert failed_tries(old, "refresh", "s") == old
    assert failed_tries(old, "retrain", "s") == failed_tries(old, "refresh", "other") == []
    assert retries(requests.open(), "refresh") == []
    one, two = (requests.add(RETRY, by="anna", about="refresh") for _ in range(2))
    wishes = retries(requests.open(), "refresh")
    assert set(wishes) == {one.id, two.id}
    assert retries(requests.open(), "retrain") == []
    assert one.kind == "refresh"
    between = replace(store.end(start(store), "failed", ("w",)), answers=(one.id,))
    since = replace(between, answers=(one.id, two.id))
    assert failed_tries([*old, between, since], "refresh", "s", retries=wishes) == [since]
    assert failed_tries([replace(since, snapshot="t")], "refresh", "s", retries=wishes) == []


def retrained(store: RunStore, snapshot: str, outcome: str, **detail: object) -> Run:
    run = store.start("retrain", snapshot=snapshot, config="c", attempt=1, worker="w")
    return run if outcome == "running" else store.end(run, outcome, ("w",), detail=detail)


def test_a_retrain_goes_on_where_one_without_a_verdict_began_whatever_was_labelled_since() -> None:
    store = RunStore(MemoryStore())
    runs = [retrained(store, "a", "failed"), retrained(store, "b", "hold")]
    assert begun(runs, "retrain", "new") == "new"
    assert failed_tries(runs, "retrain", "new") == []
    runs += [retrained(store, "c", "failed", **{TRANSIENT: True}), retrained(store, "c", "failed")]
    assert begun(runs, "retrain", "new") == "c"
    assert failed_tries(runs[::-1], "retrain", "new") == runs[-1:]
    assert begun([*runs, retrained(store, "d", "hold", **{AGAIN: True})], "retrain", "new") == "c"
    assert begun([*runs, retrained(store, "d", "running")], "retrain", "new") == "d"
    assert begun(runs, "refresh", "new") == "new"
    assert begun(runs, "retrain", "new", retries=["1"]) == "new"
    retried = replace(retrained(store, "d", "failed"), answers=("1",))
    assert begun([*runs, retried], "retrain", "newer", retries=["1"]) == "d"
    other = [replace(run, training="other code") for run in runs]
    assert (begun(other, "retrain", "new"), failed_tries(other, "retrain", "new")) == ("new", [])


def test_wishes_of_older_versions_are_still_read() -> None:
    store = MemoryStore()
    store.put("requests/1.json", b'{"id":"1","what":"retrain","by":"b","at":"t"}')
    assert [(w.what, w.about, w.kind) for w in RequestStore(store).open()] == [("retrain", "", "retrain")]
