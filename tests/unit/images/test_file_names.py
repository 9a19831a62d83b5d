"""What files are called: kept in the keys, hidden where it tells the class, and in every export."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from labelloop.config.shares import SplitShares
from labelloop.errors import CorruptObjectError
from labelloop.export.labels import ExportFilter
from labelloop.images.file_names import NAMES, file_names, keep_names
from labelloop.labels.label_config import make_label_config
from labelloop.names import LONGEST, carried, unfit
from labelloop.objects.storage import MemoryStore
from labelloop.upkeep.inspection import fault_of
from operations.data.export import collect, write_csv, write_json
from operations.projects.imagefolder import as_uploaded, names_apart, pick_seeds, renamed, scan
from operations.projects.setup import notes_on, open_source
from tests.unit.worlds.backend import picture
from tests.unit.worlds.operations import PREFIX, OpsWorld


def tree(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number))
    return folder


def keys(folder: Path, **words: object) -> dict[str, str]:
    return {f.name: f.key for f in scan(folder, "p/", **words)}  # type: ignore[arg-type]


def test_names_keep_their_folders_where_those_are_no_classes(tmp_path: Path) -> None:
    tree(tmp_path, "2024/a b.png", "2025/a b.png", "2025/é/#1%.png")
    assert keys(tmp_path, classes=("cat", "dog")) == {
        "2024/a b.png": "p/2024/a b.png",
        "2025/a b.png": "p/2025/a b.png",
        "2025/é/#1%.png": "p/2025/é/#1%.png",
    }
    (tmp_path / "labels.csv").write_text("file,label\n2024/a b.png,cat\n2025/a b.png,dog\n")
    assert keys(tmp_path)["2024/a b.png"] == "p/2024/a b.png"


def test_a_folder_that_is_called_like_a_class_is_hidden(tmp_path: Path) -> None:
    tree(tmp_path, "cat/cat1.png", "dog/x/dog1.png")
    files = scan(tmp_path, "p/")
    assert not any(word in f.key for f in files for word in ("cat", "dog"))
    assert names_apart(files, "p/") == {f.key: f.name for f in files}
    assert renamed(files, "p/") == []
    (tmp_path / "labels.csv").write_text("file,label\ncat/cat1.png,Cat\n")
    assert "cat" not in keys(tmp_path)["cat/cat1.png"]


def test_what_no_key_can_hold_is_changed_visibly_and_stays_apart(tmp_path: Path) -> None:
    tree(tmp_path, "a?.png", "a\n.png", "a_.png", "b")
    by_name = keys(tmp_path, classes=("cat", "dog"))
    assert len(set(by_name.values())) == 4
    assert all(unfit(key) is None for key in by_name.values())
    assert by_name["a_.png"] == "p/a_.png"
    assert by_name["a?.png"].startswith("p/a_-")
    files = scan(tmp_path, "p/", classes=("cat", "dog"))
    assert sorted(f.name for f in renamed(files, "p/")) == ["a\n.png", "a?.png"]
    assert set(names_apart(files, "p/").values()) == {"a\n.png", "a?.png"}


def test_a_long_name_is_cut_and_keeps_its_ending() -> None:
    long = "/".join(["x" * 250] * 5) + "/é.png"
    key = carried(long, LONGEST - 2)
    assert len(key.encode()) <= LONGEST - 2
    assert key.endswith(".png")
    assert carried("a.b/?") != carried("a.b/_")
    assert carried("a.b/?").startswith("a.b/_-")


def test_what_an_older_release_has_uploaded_keeps_its_key(tmp_path: Path) -> None:
    tree(tmp_path, "1.png", "2.png")
    files = scan(tmp_path, "p/", classes=("cat", "dog"))
    old = f"p/{hashlib.sha256(b'1.png').hexdigest()[:16]}.png"  # as releases before 0.1 named it
    assert [f.key for f in as_uploaded(files, {old}, "p/")] == [old, "p/2.png"]
    assert as_uploaded(files, {old, "p/1.png"}, "p/") == files
    tree(tmp_path, "2024/1.png", "2025/2.png")
    plain = {f.key for f in scan(tmp_path, "p/", classes=("cat", "dog"))}
    again = as_uploaded(scan(tmp_path, "p/"), plain, "p/")  # without the classes their folders would be classes
    assert {f.key for f in again} == {"p/2024/1.png", "p/2025/2.png"}
    assert as_uploaded(files, set(), "p/") == files


def test_seeds_are_drawn_by_hash_whatever_the_keys_are(tmp_path: Path) -> None:
    tree(tmp_path, *(f"v/{i:02d}.png" for i in range(20)))
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"v/{i:02d}.png,{'ab'[i % 2]}\n" for i in range(20)))
    seeds = [f.name for f in pick_seeds(scan(tmp_path, "p/"), 6, SplitShares(0, 0))]
    assert seeds != sorted(seeds)
    assert seeds == [f.name for f in pick_seeds(scan(tmp_path, "another/"), 6, SplitShares(0, 0))]


def test_names_add_up_and_a_damaged_object_is_read_from_its_copy() -> None:
    store = MemoryStore()
    assert file_names(store) == {}
    keep_names(store, {"s3://b/1": "cat/1.png"})
    keep_names(store, {"s3://b/2": "cat/2.png"})
    store.put(NAMES, b'["no')
    assert file_names(store) == {"s3://b/1": "cat/1.png", "s3://b/2": "cat/2.png"}
    assert fault_of(NAMES, b'["no') is not None
    assert fault_of(NAMES, b'{"s3://b/1":"x"}') is None
    store.put("copies/names.json.gz", b"no")
    with pytest.raises(CorruptObjectError):
        file_names(store)


def test_every_export_names_the_file(tmp_path: Path) -> None:
    world = OpsWorld()
    world.images(["1.png", "sub/2.png"], tmp=tmp_path)
    world.answer(1, "1.png", "cat")
    world.answer(2, "sub/2.png", "dog")
    world.freeze()
    keep_names(world.deployment.within(world.record), {PREFIX + "1.png": "cat/=one.png"})
    data = collect(world.deployment, world.record, ExportFilter(), at=None)
    write_csv(data, tmp_path / "x.csv")
    write_json(data, tmp_path / "x.json")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())))
    assert [r["file"] for r in rows] == ["cat/=one.png", "sub/2.png"]
    assert [t["file"] for t in json.loads((tmp_path / "x.json").read_text())["tasks"]] == ["cat/=one.png", "sub/2.png"]


def test_the_end_says_what_is_left_out_changed_or_not_followed(tmp_path: Path) -> None:
    folder = tree(tmp_path / "photos", "2024/a?.png", "2024/b.png", "2025/phone.heic")
    tree(tmp_path / "more", "1.png")
    record = OpsWorld().record
    source = open_source(tmp_path, folder, None, None, classes=("cat", "dog"))
    notes = {finding.what: finding for finding in notes_on(source, record)}
    assert "1 of the folder: 1 (HEIC is not read: save it as JPEG, e.g. '2025/phone.heic')" in notes["left out"].found
    assert "1 cannot be carried to S3: '2024/a?.png' is 'photos/2024/a_-" in notes["names"].found
    assert "has cat, dog, owl: --classes is ignored" in notes["classes"].found
    assert all(finding.ok for finding in notes.values())
    alike = open_source(tmp_path, folder, None, None, classes=("owl", "dog", "cat"))
    assert "classes" not in {finding.what for finding in notes_on(alike, record)}
    by_name = replace(record, label_config=make_label_config(("more", "photos")))
    (by_folder,) = [n for n in notes_on(open_source(tmp_path, tmp_path, None, None), by_name) if n.what == "classes"]
    assert "by the names of the folders; others: --classes" in by_folder.found
