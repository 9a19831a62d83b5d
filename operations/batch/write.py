"""Guesses in, one file out: CSV, JSON lines, Parquet or the plain `file label`; here or in S3, whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from botocore.exceptions import BotoCoreError, ClientError

from labelloop.errors import SettingsError, StorageError
from labelloop.export.labels import safe_cell
from labelloop.extras import extras_named
from labelloop.records.batches import Guess
from operations.aside import aside_of, target_of
from operations.batch.asked import S3
from operations.deployment import Deployment

COLUMNS = ("file", "label", "probability", "top", "version")
FORMATS = ("csv", "jsonl", "parquet", "list")
ROWS = 50_000  # of a row group


@dataclass(frozen=True, slots=True)
class Written:
    """What came of a batch."""

    out: str
    version: str
    images: int
    errors: int
    errors_out: str  # empty where every image could be read


def format_of(out: str, asked: str | None) -> str:
    """By the name's ending, unless it is said; SettingsError."""
    found = asked or out.rpartition(".")[2].lower()
    if found not in FORMATS:
        raise SettingsError(f"{out} must end with .csv, .jsonl or .parquet, or say --format {'|'.join(FORMATS)}")
    return found


def write(out: str, kind: str, version: str, guesses: Iterable[Guess], deployment: Deployment | None) -> Written:
    """Images that could not be read go to a file of their own, beside ``out``."""
    errors_out = f"{out.rpartition('.')[0] or out}.errors.csv"
    counts = [0, 0]
    with TemporaryDirectory(prefix="labelloop-predict-") as folder:
        problems = Path(folder) / "errors.csv"

        def readable() -> Iterator[Guess]:
            with problems.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(("file", "reason"))
                for guess in guesses:
                    counts[bool(guess.problem)] += 1
                    if guess.problem:
                        rows.writerow((safe_cell(guess.file), safe_cell(guess.problem)))
                    else:
                        yield guess

        _put(out, lambda path: _WRITERS[kind](path, version, readable()), deployment)
        if counts[1]:
            _put(errors_out, lambda path: path.write_bytes(problems.read_bytes()), deployment)
        elif not out.startswith(S3):
            with suppress(FileNotFoundError):  # of an earlier run
                Path(errors_out).unlink()
    return Written(out, version, sum(counts), counts[1], errors_out if counts[1] else "")


def _put(out: str, fill: Callable[[Path], object], deployment: Deployment | None) -> None:
    if out.startswith(S3):
        _upload(out, fill, deployment)
        return
    target = target_of(Path(out), "labels.csv")
    aside = aside_of(target)
    try:
        fill(aside)
        aside.rename(target)
    finally:
        aside.unlink(missing_ok=True)


def _upload(out: str, fill: Callable[[Path], object], deployment: Deployment | None) -> None:
    bucket, _, key = out.removeprefix(S3).partition("/")
    if deployment is None:
        raise SettingsError(f"{out} can be written where a stack is: name a file")
    with TemporaryDirectory(prefix="labelloop-predict-") as folder:
        path = Path(folder) / "out"
        fill(path)
        try:
            with path.open("rb") as file:
                deployment.s3.upload_fileobj(file, bucket, key)
        except (ClientError, BotoCoreError, OSError) as error:
            raise StorageError(f"{out} cannot be written: {error}") from error


def _csv(path: Path, version: str, guesses: Iterator[Guess]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        rows.writerows(
            (safe_cell(g.file), safe_cell(g.label), g.probability, json.dumps(dict(g.top)), version) for g in guesses
        )


def _jsonl(path: Path, version: str, guesses: Iterator[Guess]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for g in guesses:
            line = {"file": g.file, "label": g.label, "probability": g.probability, "top": dict(g.top)}
            file.write(json.dumps({**line, "version": version}, ensure_ascii=False) + "\n")


def _list(path: Path, _version: str, guesses: Iterator[Guess]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(f"{g.file} {g.label}\n" for g in guesses)


def _parquet(path: Path, version: str, guesses: Iterator[Guess]) -> None:
    with extras_named():
        import pyarrow as pa
        import pyarrow.parquet as pq
    top = pa.list_(pa.struct([("label", pa.string()), ("probability", pa.float32())]))
    schema = pa.schema([("file", pa.string()), ("label", pa.string()), ("probability", pa.float32()), ("top", top),
                        ("version", pa.string())])  # fmt: skip
    with pq.ParquetWriter(path, schema) as writer:
        rows: list[dict[str, object]] = []
        for g in guesses:
            likely = [{"label": label, "probability": p} for label, p in g.top]
            rows.append({"file": g.file, "label": g.label, "probability": g.probability, "top": likely,
                         "version": version})  # fmt: skip
            if len(rows) >= ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows.clear()
        writer.write_table(pa.Table.from_pylist(rows, schema))


_WRITERS: dict[str, Callable[[Path, str, Iterator[Guess]], None]] = {
    "csv": _csv, "jsonl": _jsonl, "list": _list, "parquet": _parquet,
}  # fmt: skip
