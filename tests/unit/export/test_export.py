"""Exports: the answer that counts, cells no spreadsheet runs, names no file system trips over, files never in part."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from labelloop.errors import NotFoundError, SettingsError
from labelloop.export.labels import ExportFilter, ExportRow, csv_row, safe_cell
from labelloop.records.images import Split
from labelloop.records.tasks import Task
from operations.data.export import collect, replace_file, write_csv, write_json
from tests.unit.worlds.operations import PREFIX, OpsWorld, seen


@pytest.fixture
def world(tmp_path: Path) -> OpsWorld:
    world = OpsWorld()
    world.images(["1.png", "2.png", "3.png"], tmp=tmp_path)
    world.images(["4.png"], Split.TEST, tmp=tmp_path)
    world.answer(1, "1.png", "cat", seen=seen("dog"), lead_time_s=2.5)
    world.answer(1, "1.png", "dog", minute=5, ground_truth=True, by=8)
    world.answer(2, "2.png", None, cancelled=True)
    world.answer(3, "3.png", "=cmd|' /C calc'!A0")
    world.answer(4, "4.png", "cat", seed=True)
    world.answer(5, "5.png", "owl")  # not looked at yet
    world.freeze()
    return world


def rows(world: OpsWorld, path: Path, **chosen: Any) -> list[dict[str, str]]:
    write_csv(collect(world.deployment, world.record, ExportFilter(**chosen), at=None), path)
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_one_row_per_labelled_task_with_the_answer_that_counts(world: OpsWorld, tmp_path: Path) -> None:
    lines = rows(world, tmp_path / "x.csv")
    assert [(r["task_id"], r["label"], r["bucket"]) for r in lines] == [
        ("1", "dog", "train"), ("3", "'=cmd|' /C calc'!A0", "train"), ("4", "cat", "test"), ("5", "owl", "")
    ]  # fmt: skip
    first = lines[0]
    assert first["uri"] == PREFIX + "1.png"
    assert (first["annotator"], first["annotation_id"], first["ground_truth"], first["answers"]) == (
        "8", "101", "true", "2"
    )  # fmt: skip
    assert (first["seen_label"], first["lead_time_s"]) == ("", "")  # of the answer that counts, not of the older one
    assert lines[2]["seed"] == "true"


def test_buckets_and_skipped_ones_on_demand(world: OpsWorld, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    assert [r["task_id"] for r in rows(world, path, split=Split.TEST)] == ["4"]
    skipped = {r["task_id"]: r for r in rows(world, path, with_skipped=True)}
    assert list(skipped) == ["1", "2", "3", "4", "5"]
    assert (skipped["2"]["label"], skipped["2"]["skipped"], skipped["2"]["annotator"]) == ("", "true", "7")


def test_older_snapshots_by_version_and_by_id(world: OpsWorld, tmp_path: Path) -> None:
    before = world.freeze()
    world.version(before.id)
    world.answer(6, "6.png", "cat")
    world.freeze()
    for name in ("v1", before.id, before.id[:8]):
        data = collect(world.deployment, world.record, ExportFilter(), at=name)
        assert [r.task.id for r in data.rows] == [1, 3, 4, 5]
        assert data.info["snapshot"] == before.id
        assert data.info["version"] == ("v1" if name == "v1" else None)
    assert len(collect(world.deployment, world.record, ExportFilter(), at=None).rows) == 5
    with pytest.raises(NotFoundError, match="has no version v9; `labelloop models`"):
        collect(world.deployment, world.record, ExportFilter(), at="v9")
    with pytest.raises(NotFoundError, match="no snapshot is called 'zz'"):
        collect(world.deployment, world.record, ExportFilter(), at="zz")


def test_a_class_counts_as_the_project_says_and_what_was_given_stays(tmp_path: Path) -> None:
    world = OpsWorld(label_map={"owl": "cat", "dog": None})
    world.answer(1, "1.png", "owl")
    world.answer(2, "2.png", "dog")
    world.freeze()
    lines = rows(world, tmp_path / "x.csv")
    assert [(r["label"], r["given_label"]) for r in lines] == [("cat", "owl")]


def test_json_holds_every_answer_as_it_was_given(world: OpsWorld, tmp_path: Path) -> None:
    data = collect(world.deployment, world.record, ExportFilter(with_skipped=True), at=None)
    done = write_json(data, tmp_path / "x.json")
    content = json.loads((tmp_path / "x.json").read_text())
    assert (done.tasks, done.labelled) == (5, 4)
    assert content["info"]["filter"] == {"with_skipped": True}
    assert content["classes"] == ["cat", "dog", "owl"]
    tasks = {t["task"]: t for t in content["tasks"]}
    assert tasks[3]["label"] == "=cmd|' /C calc'!A0"  # nobody runs JSON
    assert [a["label"] for a in tasks[1]["annotations"]] == ["cat", "dog"]
    prediction = {"version": "v1", "label": "dog", "blind": False, "probability": None, "chosen": False}
    assert tasks[1]["annotations"][0]["seen"] == prediction
    assert tasks[1]["counts"] == 101
    assert (tasks[2]["skipped"], tasks[5]["image"], tasks[5]["bucket"]) == (True, None, None)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\nx", " =1", "＝1", "'quoted", "'=1"])
def test_a_text_that_might_run_gets_a_quote_and_reads_back(text: str) -> None:
    assert safe_cell(text) == "'" + text
    assert safe_cell(text).removeprefix("'") == text


@pytest.mark.parametrize("text", ["cat", "s3://b/k", "a=b", "", "1", "café"])
def test_a_harmless_text_stays(text: str) -> None:
    assert safe_cell(text) == text


def test_quotes_commas_and_new_lines_in_a_class_read_back() -> None:
    label = 'a,"b"\nc'
    line = io.StringIO()
    csv.writer(line).writerow(csv_row(ExportRow(Task(1, "u", "t"), label, None, None)))
    assert label in next(csv.reader(io.StringIO(line.getvalue())))


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("old")

    def breaks(stream: Any) -> None:
        stream.write("half")
        raise KeyError("surprise")

    with pytest.raises(KeyError):
        replace_file(path, breaks)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv"]


def test_a_place_that_cannot_be_written_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"is a folder: name a file, e\.g\."):
        replace_file(tmp_path, lambda _: None)
    with pytest.raises(SettingsError, match=r"is a folder: name a file"):
        replace_file(Path(), lambda _: None)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingsError, match=r"a device or a pipe"):
        replace_file(tmp_path / "pipe", lambda _: None)
    with pytest.raises(SettingsError, match=r"cannot write .*No such file"):
        replace_file(tmp_path / "none" / "x.csv", lambda _: None)


def test_a_link_stays_one_and_the_file_behind_it_is_replaced(tmp_path: Path) -> None:
    behind, link = tmp_path / "behind.csv", tmp_path / "link.csv"
    behind.write_text("old")
    link.symlink_to(behind)
    replace_file(link, lambda stream: stream.write("new"))
    assert link.is_symlink()
    assert behind.read_text() == "new"
