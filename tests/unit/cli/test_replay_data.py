"""Class folders, or a project's own labels, in; what `labelloop replay` replays out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from cli.here import replay_data
from cli.here.replay_data import history_of_folders, history_of_project
from labelloop.clock import stamp
from labelloop.config.project import ProjectConfig
from labelloop.config.settings import load_settings
from labelloop.errors import ConflictError, SettingsError
from labelloop.records.images import JUDGING, Split
from labelloop.store.features import Floats
from operations.deployment import Deployment
from operations.projects.imagefolder import LabelledFile
from retrain_worker.replay.history import ReplayHistory
from tests.unit.worlds.learning import LearningWorld, digits

CONFIG = ProjectConfig()


def folder(root: Path, pictures: Sequence[tuple[bytes, str]]) -> Path:
    """Class folders with these pictures."""
    for i, (data, label) in enumerate(pictures):
        place = root / label / f"{i:03d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return root


def read(images: Path, keep: Path, test: Path | None = None) -> ReplayHistory:
    return history_of_folders(images, test, CONFIG, load_settings({}), keep=keep, report=lambda *_: None)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Features that tell only the first byte sums apart, and how often how many were computed."""
    calls: list[int] = []

    def cheap(files: Sequence[LabelledFile], *_: object) -> tuple[Floats, list[str]]:
        calls.append(len(files))
        data = [f.path.read_bytes() for f in files]
        return np.array([[len(d), sum(d)] for d in data], dtype=np.float32), [str(sum(d)) for d in data]

    monkeypatch.setattr(replay_data, "_computed", cheap)
    return calls


def test_class_folders_become_features_classes_and_groups(tmp_path: Path) -> None:
    pictures = digits()[:12]
    history = read(folder(tmp_path / "few", [*pictures, pictures[0]]), tmp_path / "kept")
    assert history.name == "few"
    assert history.classes == tuple(sorted({label for _, label in pictures}))
    assert history.images.features.shape[0] == len(history.images.labels) == len(history.images.groups) == 13
    assert len(set(history.images.groups)) <= 12  # the same bytes are one group
    named = sorted(history.classes[k] for k in history.images.labels)
    assert named == sorted([*(label for _, label in pictures), pictures[0][1]])
    assert history.held_out is None


def test_what_a_test_image_shows_is_not_learned_from(tmp_path: Path, counted: list[int]) -> None:
    pictures = digits()[:30]
    train, test = folder(tmp_path / "train", pictures[:20]), folder(tmp_path / "test", pictures[15:])
    history = read(train, tmp_path / "kept", test)
    assert history.held_out is not None
    assert len(history.held_out.labels) == 15
    assert len(history.images.labels) == 15
    assert not set(history.images.groups) & set(history.held_out.groups)
    assert counted == [35]


def test_a_test_folder_without_classes_is_refused(tmp_path: Path, counted: list[int]) -> None:
    train, test = folder(tmp_path / "train", digits()[:20]), tmp_path / "test"
    test.mkdir()
    (test / "1.png").write_bytes(digits()[30][0])
    with pytest.raises(SettingsError, match="test"):
        read(train, tmp_path / "kept", test)
    assert not counted


def test_features_are_computed_once_until_an_image_changes(tmp_path: Path, counted: list[int]) -> None:
    images, keep = folder(tmp_path / "some", digits()[:20]), tmp_path / "kept"
    first, again = read(images, keep), read(images, keep)
    np.testing.assert_array_equal(first.images.features, again.images.features)
    assert (first.images.groups, counted) == (again.images.groups, [20])
    folder(images, digits()[100:101])
    read(images, keep)
    assert len(counted) == 2


def test_a_run_that_is_interrupted_leaves_nothing_half_written(
    tmp_path: Path, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, keep = folder(tmp_path / "some", digits()[:20]), tmp_path / "kept"

    def half(file: Any, **_: object) -> None:
        if isinstance(file, Path):
            file.write_bytes(b"PK\x03\x04 half")
        else:
            file.write(b"PK\x03\x04 half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", half)
        with pytest.raises(KeyboardInterrupt):
            read(images, keep)
    assert list(keep.iterdir()) == []
    assert len(read(images, keep).images.labels) == 20
    assert counted == [20, 20]
    assert [path.suffix for path in keep.iterdir()] == [".npz"]


def of_project(world: LearningWorld, cache: Path) -> ReplayHistory:
    deployment = SimpleNamespace(within=lambda _: world.project.store, registry=lambda _: world.project.registry)
    return history_of_project(cast("Deployment", deployment), world.project.record, cache)


def test_a_projects_own_labels_are_judged_on_its_random_ones(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=200)
    with pytest.raises(ConflictError, match="nothing is labelled yet"):
        of_project(world, tmp_path / "cache")
    train, random = world.uris(Split.TRAIN)[:50], world.uris(*JUDGING)
    assert len(random) >= 40
    world.label([*train, *random])
    history = of_project(world, tmp_path / "cache")
    assert history.held_out is not None
    assert (len(history.images.labels), len(history.held_out.labels)) == (50, len(random))
    images = world.project.catalogue.images
    assert set(history.images.groups) == {images[u].group for u in train}
    assert sorted(history.classes[k] for k in history.images.labels) == sorted(world.truth[u] for u in train)


@pytest.mark.parametrize("random", [10, 40])
def test_what_is_in_quarantine_is_neither_learned_from_nor_judged_on(tmp_path: Path, random: int) -> None:
    world = LearningWorld(tmp_path, images=200)
    train, judging = world.uris(Split.TRAIN)[:50], world.uris(*JUDGING)[:random]
    images = world.project.catalogue.images
    apart = [replace(images[u], bucket=Split.QUARANTINE) for u in train[:5]]
    world.project.catalogue.add(apart, stamp())
    world.project.catalogue.update()
    world.label([*train, *judging])
    history = of_project(world, tmp_path / "cache")
    assert (history.held_out is None) is (random < 40)
    assert len(history.images.labels) == 45 + (random if random < 40 else 0)
    assert not set(history.images.groups) & {facts.group for facts in apart}
