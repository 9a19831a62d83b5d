"""Class folders: names no system trips over, a manifest that fits, a copy that can be broken off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labelloop.errors import ImageUnreadableError, SettingsError, StorageError
from labelloop.export.folders import LONGEST, folder_names, safe_name, unique_names
from labelloop.export.labels import ExportFilter
from operations.data.export import Exported, collect
from operations.data.export_folders import MANIFEST, UNFINISHED, inside, write_folders
from tests.unit.worlds.operations import PREFIX, OpsWorld, image_bytes


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("cat", "cat"), ("Katze 2", "Katze 2"), ("猫", "猫"), ("हिन्दी", "हिन्दी"),
        ("..", "_"), (".", "_"), ("", "_"), ("/", "_"),
        ("../../etc", "_.._etc"), ("a/b\\c", "a_b_c"), ("-rf", "_-rf"), (".hidden", "hidden"), ("x. ", "x"),
        ("con", "_con"), ("NUL.png", "_NUL.png"), ("a:b*c?", "a_b_c_"), ("a\0b\nc", "a_b_c"), ("\u202eabc", "_abc"),
    ],
)  # fmt: skip
def test_names_are_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_long_names_are_cut_and_keep_their_suffix() -> None:
    name = safe_name("ä" * 300 + ".jpeg")
    assert len(name.encode()) <= LONGEST
    assert name.endswith(".jpeg")
    assert len(safe_name("x" * 300).encode()) <= LONGEST


def test_names_that_clash_anywhere_are_told_apart() -> None:
    names = unique_names({"Cat": "Cat", "cat": "cat", "a/b": "a/b", "a_b": "a_b", "dog": "dog"})
    assert len({n.casefold() for n in names.values()}) == 5
    assert (names["dog"], names["a_b"]) == ("dog", "a_b")  # nothing had to be changed for these
    assert names["a/b"].startswith("a_b-")
    assert names["Cat"].startswith("Cat-")


def test_a_name_like_one_of_our_marks_does_not_clash() -> None:
    plain = unique_names({"x/1.png": "1.png", "y/1.png": "1.png"})
    wicked = unique_names({"x/1.png": "1.png", "y/1.png": "1.png", "z": plain["x/1.png"]})
    assert len(set(wicked.values())) == 3


def test_a_class_that_is_called_like_the_folder_of_the_skipped_ones() -> None:
    folders = folder_names(["_skipped", None, "cat"])
    assert len(set(folders.values())) == 3
    assert folders["cat"] == "cat"
    assert folder_names([None])[None] == "_skipped"


class FakeReader:
    """Images of the world; some trouble on demand."""

    def __init__(self) -> None:
        self.read_uris: list[str] = []
        self.trouble: dict[str, Exception] = {}
        self.other: dict[str, bytes] = {}

    def read(self, uri: str) -> tuple[bytes, str]:
        self.read_uris.append(uri)
        if uri in self.trouble:
            raise self.trouble[uri]
        return self.other.get(uri, image_bytes(uri)), "e"


@pytest.fixture
def world(tmp_path: Path) -> OpsWorld:
    world = OpsWorld()
    world.images(["a/1.png", "b/1.png", "2.png", "3.png"], tmp=tmp_path / "cache")
    world.answer(1, "a/1.png", "cat", by=8)
    world.answer(2, "b/1.png", "cat")
    world.answer(3, "2.png", "../dog")
    world.answer(4, "3.png", None, cancelled=True)
    world.freeze()
    return world


def export(
    world: OpsWorld, root: Path, reader: FakeReader | None, *, with_skipped: bool = False
) -> tuple[Exported, dict[str, Any]]:
    data = collect(world.deployment, world.record, ExportFilter(with_skipped=with_skipped), at=None)
    done = write_folders(data, root, reader, lambda *_: None)
    return done, json.loads((root / MANIFEST).read_text())


def files(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}


def test_a_manifest_alone_names_images_classes_and_who(world: OpsWorld, tmp_path: Path) -> None:
    done, content = export(world, tmp_path / "out", None, with_skipped=True)
    assert (done.tasks, done.labelled, done.copied) == (4, 3, 0)
    assert files(tmp_path / "out") == {MANIFEST}
    assert [c["name"] for c in content["categories"]] == ["cat", "dog", "owl", "../dog"]
    images = {i["id"]: i for i in content["images"]}
    assert len({i["file_name"] for i in images.values()}) == 4
    assert all(".." not in Path(i["file_name"]).parts for i in images.values())
    assert {i["file_name"].split("/")[0] for i in images.values()} == {"cat", "_dog", "_skipped"}
    first = next(a for a in content["annotations"] if a["task_id"] == 1)
    assert images[first["image_id"]]["uri"] == PREFIX + "a/1.png"
    assert (first["annotator"], first["annotation_id"]) == (8, 100)
    assert len(content["annotations"]) == 3
    assert content["info"]["snapshot"] == done.snapshot


def test_images_are_copied_once_and_gone_on_with(world: OpsWorld, tmp_path: Path) -> None:
    root, reader = tmp_path / "out", FakeReader()
    done, content = export(world, root, reader)
    assert (done.copied, done.kept, done.removed, done.problems) == (3, 0, 0, {})
    assert files(root) == {MANIFEST, *(i["file_name"] for i in content["images"])}
    for image in content["images"]:
        assert (root / image["file_name"]).read_bytes() == image_bytes(image["uri"])
    again, _ = export(world, root, reader)
    assert (again.copied, again.kept) == (0, 3)
    assert len(reader.read_uris) == 3


def test_a_corrected_label_moves_the_image(world: OpsWorld, tmp_path: Path) -> None:
    root = tmp_path / "out"
    export(world, root, FakeReader())
    world.answer(3, "2.png", "cat", minute=9)
    world.freeze()
    done, content = export(world, root, FakeReader())
    assert done.removed == 1
    assert files(root) == {MANIFEST, *(i["file_name"] for i in content["images"])}
    assert {i["file_name"].split("/")[0] for i in content["images"]} == {"cat"}


def test_a_copy_that_was_broken_off_leaves_no_manifest_and_nothing_stale(world: OpsWorld, tmp_path: Path) -> None:
    root, reader = tmp_path / "out", FakeReader()
    export(world, root, reader)
    world.answer(3, "2.png", "cat", minute=9)  # somebody has corrected one
    world.freeze()
    reader.trouble[PREFIX + "3.png"] = StorageError("away")
    with pytest.raises(StorageError):
        export(world, root, reader, with_skipped=True)
    assert not (root / MANIFEST).exists()
    assert (root / UNFINISHED).exists()
    world.answer(1, "a/1.png", "owl", minute=9)  # and meanwhile another one
    world.freeze()
    _, content = export(world, root, FakeReader())
    assert files(root) == {MANIFEST, *(i["file_name"] for i in content["images"])}


def test_one_bad_image_stops_no_other_and_the_manifest_says_why(world: OpsWorld, tmp_path: Path) -> None:
    root, reader = tmp_path / "out", FakeReader()
    reader.trouble[PREFIX + "a/1.png"] = ImageUnreadableError("does not exist")
    reader.other[PREFIX + "2.png"] = b"other bytes than those that were labelled"
    done, content = export(world, root, reader)
    assert done.copied == 1
    assert set(done.problems or ()) == {PREFIX + "a/1.png", PREFIX + "2.png"}
    problems = {i["uri"]: i.get("problem") for i in content["images"]}
    assert problems[PREFIX + "a/1.png"] == "does not exist"
    assert "changed" in problems[PREFIX + "2.png"]
    assert problems[PREFIX + "b/1.png"] is None


def test_a_folder_of_somebody_else_is_left_alone(world: OpsWorld, tmp_path: Path) -> None:
    root = tmp_path / "out"
    root.mkdir()
    (root / "thesis.txt").write_text("years")
    with pytest.raises(SettingsError, match="choose an empty or a new folder"):
        export(world, root, None)
    (root / MANIFEST).write_text('{"name": "of another program"}')
    with pytest.raises(SettingsError, match="no export has written"):
        export(world, root, None)
    assert (root / "thesis.txt").exists()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x"])
def test_nothing_is_touched_outside_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not lie inside"):
        inside(tmp_path, name)


def test_nothing_is_touched_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cat").symlink_to(tmp_path)
    with pytest.raises(SettingsError, match="does not lie inside"):
        inside(tmp_path / "out", "cat/1.png")
