"""Folders of images: where their classes come from, and what is said of those that cannot be used."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from labelloop.config.shares import SplitShares
from labelloop.decoding.endings import SUFFIXES
from labelloop.decoding.square import FORMATS
from labelloop.errors import SettingsError
from operations.projects.imagefolder import classes_of, pick_seeds, require_labels, scan
from operations.projects.setup import open_source
from operations.simulation.simulate import prepare
from operations.source import IMAGE_PATTERN
from tests.unit.worlds.backend import picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Flat: six images."""
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(6):
        (root / f"{i}.png").write_bytes(picture(i))
    (root / "notes.txt").write_text("no image")
    return root


def table(folder: Path, *lines: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text("\n".join(lines))
    return folder / name


def labels(folder: Path, csv_path: Path | None = None) -> dict[str, str | None]:
    return {str(f.path.relative_to(folder)): f.label for f in scan(folder, "p/", csv_path)}


def test_class_folders(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "1.png").write_bytes(b"x")
    (tmp_path / "cover.png").write_bytes(b"x")  # none of the classes
    assert labels(tmp_path) == {"cat/deep/1.png": "cat", "dog/deep/1.png": "dog"}


def test_a_flat_folder_has_no_labels(folder: Path) -> None:
    files = scan(folder, "p/")
    assert {f.label for f in files} == {None}
    assert len({f.key for f in files}) == 6
    assert [f.key for f in files] == [f"p/{f.path.name}" for f in files]


def test_a_list_of_labels_in_the_folder_or_beside_it(folder: Path, tmp_path: Path) -> None:
    table(folder, "file,label", "0.png,cat", "1.png, dog ", "2.png,")
    assert labels(folder) == {
        "0.png": "cat",
        "1.png": "dog",
        "2.png": None,
        "3.png": None,
        "4.png": None,
        "5.png": None,
    }
    beside = table(tmp_path, "Label,note,File", "owl,seen,5.png", name="other.csv")
    assert labels(folder, beside)["5.png"] == "owl"
    assert labels(folder, beside)["0.png"] is None


def test_a_list_with_a_byte_order_mark_and_quotes(folder: Path) -> None:
    (folder / "a, b.png").write_bytes(picture(9))
    (folder / "labels.csv").write_bytes('\ufefffile,label\r\n"a, b.png","big ""cat"""\r\n'.encode())
    assert labels(folder)["a, b.png"] == 'big "cat"'


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["0.png,cat"], "must begin with the line `file,label`"),
        ([], "must begin with the line `file,label`"),
        (["file,label", "0.png,cat", "nine.png,dog"], r"line 3: there is no 'nine.png'.*delete the line"),
        (["file,label", "../photos/0.png,cat", "../secret.png,dog"], r"line 3: '../secret.png' is no image of"),
        (["file,label", "/etc/passwd,cat"], "is no image of"),
        (["file,label", "notes.txt,cat"], r"line 2: 'notes.txt' is no image of"),
        (
            ["file,label", "0.png,cat", "1.png,dog", "0.png,dog"],
            "line 4 says that 0.png is 'dog', line 2 that it is 'cat'",
        ),
    ],
)
def test_a_wrong_line_is_named_with_the_remedy(folder: Path, lines: list[str], reason: str) -> None:
    table(folder, *lines)
    with pytest.raises(SettingsError, match=reason):
        scan(folder, "p/")


def test_a_list_that_is_no_text_or_not_there(folder: Path, tmp_path: Path) -> None:
    (folder / "labels.csv").write_bytes(b"file,label\n0.png,\xff\xfe\n")
    with pytest.raises(SettingsError, match="UTF-8"):
        scan(folder, "p/")
    with pytest.raises(SettingsError, match="cannot read the labels"):
        scan(folder, "p/", tmp_path / "none.csv")


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not a folder"):
        scan(tmp_path / "none", "p/")
    with pytest.raises(SettingsError, match="holds no images"):
        scan(tmp_path, "p/")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"x")
    with pytest.raises(SettingsError, match=r"one class folder with images \(cat\)"):
        scan(tmp_path, "p/")


def test_classes_come_from_the_options_the_config_or_the_labels(folder: Path, tmp_path: Path) -> None:
    assert open_source(tmp_path, folder, None, None, classes=("cat", "dog")).classes == ("cat", "dog")
    config = tmp_path / "project.yaml"
    config.write_text("name: photos\nlabels: [owl, fox]\n")
    assert open_source(tmp_path, folder, config, None).classes == ("owl", "fox")
    table(folder, "file,label", "0.png,dog", "1.png,cat")
    assert open_source(tmp_path, folder, None, None).classes == ("cat", "dog")
    assert open_source(tmp_path, folder, None, None, classes=("cat", "dog", "owl")).classes == ("cat", "dog", "owl")


def test_classes_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gives 0 classes.*--classes cat,dog"):
        open_source(tmp_path, folder, None, None)
    with pytest.raises(SettingsError, match=r"no labels to reveal 4 of.*--seed"):
        open_source(tmp_path, folder, None, 4, classes=("cat", "dog"))
    config = tmp_path / "project.yaml"
    config.write_text("labels: [owl, fox]\n")
    with pytest.raises(SettingsError, match="given twice"):
        open_source(tmp_path, folder, config, None, classes=("cat", "dog"))
    table(folder, "file,label", "0.png,dog", "1.png,cta")
    with pytest.raises(SettingsError, match=r"1\.png is labelled 'cta'.*fix the label"):
        open_source(tmp_path, folder, None, None, classes=("cat", "dog"))


def test_seeds_are_drawn_from_what_has_a_label(folder: Path) -> None:
    table(folder, "file,label", "0.png,cat", "1.png,dog", "2.png,dog", "3.png,cat")
    files = scan(folder, "p/")
    seeds = pick_seeds(files, 10, SplitShares(0, 0))
    assert sorted(f.path.name for f in seeds) == ["0.png", "1.png", "2.png", "3.png"]
    assert [f.label for f in seeds][:2] == ["cat", "dog"]  # in turn
    assert classes_of(files) == ("cat", "dog")


def test_who_knows_the_truth_needs_all_of_it(folder: Path, tmp_path: Path) -> None:
    table(folder, "file,label", "0.png,cat", "1.png,dog")
    with pytest.raises(
        SettingsError, match=r"simulate needs the class of every image: 4 of 6 have none, e\.g\. .*2\.png"
    ):
        prepare(tmp_path, images=folder, test=None, config=None, reveal=None, seed=0)
    truth = table(tmp_path, "file,label", *(f"{i}.png,{'cat' if i % 2 else 'dog'}" for i in range(6)), name="truth.csv")
    source, held_out = prepare(tmp_path, images=folder, test=None, config=None, reveal=None, seed=0, truth=truth)
    complete = require_labels([*source.files, *held_out], "the test")
    assert len(complete) == 6
    assert set(complete.values()) == {"cat", "dog"}
    with pytest.raises(SettingsError):
        require_labels([replace(source.files[0], label=None)], "the test")


def test_one_list_of_endings_decides_what_is_uploaded_listed_and_shown(tmp_path: Path) -> None:
    for ending in SUFFIXES:
        (tmp_path / f"x{ending}").write_bytes(b"")
        (tmp_path / f"y{ending.upper()}").write_bytes(b"")
    (tmp_path / "x.txt").write_bytes(b"")
    (tmp_path / "png").write_bytes(b"")
    taken = {file.path.name for file in scan(tmp_path, "p/")}
    assert taken == {p.name for p in tmp_path.iterdir() if re.match(IMAGE_PATTERN, p.name)}
    assert len(taken) == 2 * len(SUFFIXES)
    assert {Image.registered_extensions()[ending] for ending in SUFFIXES} == set(FORMATS)
