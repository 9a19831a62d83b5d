"""What is asked of `predict`, and what is written: whole or not at all, taken up where it was stopped."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from labelloop.errors import SettingsError
from labelloop.records.batches import Guess
from operations.batch.asked import asked_for, named
from operations.batch.part import Part, Stat
from operations.batch.write import Written, format_of, write

GUESSES = (
    Guess("a b.png", "cat", 0.9, (("cat", 0.9), ("dog", 0.1))),
    Guess("=x,\n.png", "dog", 0.6, (("dog", 0.6), ("cat", 0.4))),
    Guess("gone.png", problem="it does not exist"),
)


def written(folder: Path, name: str, kind: str | None = None, guesses: tuple[Guess, ...] = GUESSES) -> Written:
    out = str(folder / name)
    return write(out, format_of(out, kind), "v3", iter(guesses), None)


def test_csv_jsonl_and_parquet_hold_the_same(tmp_path: Path) -> None:
    for name in ("o.csv", "o.jsonl", "o.parquet"):
        assert written(tmp_path, name) == Written(str(tmp_path / name), "v3", 3, 1, str(tmp_path / "o.errors.csv"))
    with (tmp_path / "o.csv").open(newline="") as file:
        by_csv = [{**row, "top": json.loads(row["top"]), "probability": float(row["probability"])}
                  for row in csv.DictReader(file)]  # fmt: skip
    by_lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    by_rows: list[dict[str, Any]] = pq.read_table(tmp_path / "o.parquet").to_pylist()
    assert by_csv[1]["file"].startswith("'=")  # no formula for a spreadsheet
    assert [{**row, "file": row["file"].removeprefix("'")} for row in by_csv] == by_lines
    assert [row["file"] for row in by_rows] == [line["file"] for line in by_lines] == ["a b.png", "=x,\n.png"]
    assert by_rows[0]["top"][1]["label"] == "dog"
    assert by_rows[0]["probability"] == pytest.approx(0.9)
    assert {line["version"] for line in by_lines} == {"v3"}
    with (tmp_path / "o.errors.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"file": "gone.png", "reason": "it does not exist"}]


def test_the_plain_list_is_file_and_label(tmp_path: Path) -> None:
    written(tmp_path, "o.txt", "list", GUESSES[:1])
    assert (tmp_path / "o.txt").read_text() == "a b.png cat\n"
    assert not (tmp_path / "o.errors.csv").exists()


def test_errors_of_an_earlier_run_go_when_there_are_none(tmp_path: Path) -> None:
    written(tmp_path, "o.csv")
    written(tmp_path, "o.csv", guesses=GUESSES[:2])
    assert not (tmp_path / "o.errors.csv").exists()


def test_what_fails_leaves_the_earlier_file(tmp_path: Path) -> None:
    written(tmp_path, "o.csv")
    before = (tmp_path / "o.csv").read_bytes()

    def broken() -> Any:
        yield GUESSES[0]
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write(str(tmp_path / "o.csv"), "csv", "v4", broken(), None)
    assert (tmp_path / "o.csv").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.csv", "o.errors.csv"]


def test_an_unknown_ending_and_a_bucket_without_a_stack_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"must end with \.csv"):
        format_of("out.xls", None)
    with pytest.raises(SettingsError, match="name a file"):
        write("s3://b/o.csv", "csv", "v1", iter(GUESSES), None)


def test_files_folders_and_lists_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    one, two = tmp_path / "in" / "a.png", tmp_path / "in" / "deep" / "b.JPG"
    for path in (one, two, tmp_path / "in" / "notes.md", tmp_path / "in" / ".hidden.png"):
        path.write_bytes(b"x")
    assert asked_for(str(one), None).files == (one,)
    folder = asked_for(str(tmp_path / "in"), None)
    assert (folder.files, folder.left_out) == ((one, two), 1)
    listing = tmp_path / "list.txt"
    listing.write_text("\ufeffin/a.png\n\nin/deep/b.JPG\nin/a.png\n")
    assert asked_for(str(listing), None).files == (one, two)


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "lists nothing"), ("a.png\ns3://b/c.png\n", "make two lists"), ("s3://b/c.png\n", "start the stack")],
)
def test_a_list_that_cannot_be_done_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(Exception, match=why):
        asked_for(str(tmp_path / "list.txt"), None)


def test_what_is_no_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match="holds no images"):
        asked_for(str(tmp_path / "empty"), None)
    with pytest.raises(SettingsError, match="is no file, no folder"):
        asked_for(str(tmp_path / "nothing"), None)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="no UTF-8"):
        asked_for(str(tmp_path / "binary.txt"), None)


def test_a_stopped_command_is_taken_up_but_not_for_another_version(tmp_path: Path) -> None:
    path, stat = tmp_path / ".o.part", Stat(3, 7)
    with Part(path, {"version": "v1"}) as part:
        part.add([(stat, GUESSES[0]), (stat, GUESSES[2])])
    with path.open("a") as file:
        file.write('{"file": "cut o')  # killed in the middle of a line
    with Part(path, {"version": "v1"}) as part:
        assert part.done == {"a b.png": (stat, GUESSES[0]), "gone.png": (stat, GUESSES[2])}
        part.add([(stat, GUESSES[1])])
    with Part(path, {"version": "v1"}) as part:
        assert len(part.done) == 3
    with Part(path, {"version": "v2"}) as part:
        assert not part.done
        part.drop()
    assert not path.exists()


def test_a_name_that_is_no_utf8_is_written_all_the_same(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / name).write_bytes(b"x")
    file = named(tmp_path / name)
    written(tmp_path, "o.jsonl", guesses=(Guess(file, "cat", 1.0, (("cat", 1.0),)),))
    assert json.loads((tmp_path / "o.jsonl").read_text(encoding="utf-8"))["label"] == "cat"
