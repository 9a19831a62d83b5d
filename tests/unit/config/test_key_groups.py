"""Groups and a test set that people know: taken over for the split, refused in words where they are wrong."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from labelloop.config.key_groups import group_by, in_test_set
from labelloop.config.project import ProjectConfig, parse_config
from labelloop.errors import SettingsError
from labelloop.records.images import Split
from tests.unit.likeness.test_near import jpeg, png, scene
from tests.unit.worker.test_settle import take, world_of

FOLDER = "s3://images/lung/"


def test_a_pattern_names_groups_by_the_end_of_an_address() -> None:
    same = group_by("{group}/*", "s3://b/p1/a.png"), group_by("{group}/*", "s3://b/p1/b.png")
    assert same[0] == same[1] != group_by("{group}/*", "s3://b/p2/a.png")
    assert group_by("{group}_*.png", "s3://b/x/p1_02.png") == same[0]
    assert group_by("video-{group}/frame-*.jpg", "s3://b/video-p1/frame-9.jpg") == same[0]
    assert group_by("{group}", "s3://b/p1") == same[0]
    for pattern, uri in (("{group}_*.png", "s3://b/p1.png"), ("{group}_*.png", "s3://b/_1.png"), ("a/{group}/*", "x")):
        assert group_by(pattern, uri) is None


def test_a_pattern_is_tried_once_however_long_the_address() -> None:
    began = time.process_time()
    assert group_by("{group}" + "a*" * 90, "s3://b/" + "a" * 100_000) is not None
    assert group_by("{group}" + "a*" * 90 + "b", "s3://b/" + "a" * 100_000) is None
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "pattern", ["*", "{group}{group}", "{group}*", "*{group}", "a//{group}", "/{group}", "{name}/{group}", "x" * 300]
)
def test_a_wrong_pattern_is_refused_in_words(pattern: str) -> None:
    with pytest.raises(SettingsError, match=r"pattern"):
        parse_config({"buckets": {"group_by": pattern}}, "test.yaml")


def test_a_test_set_is_a_folder_of_the_project_or_an_address() -> None:
    assert in_test_set("test/", "s3://images/lung/test/a.png", FOLDER)
    assert in_test_set("s3://images/lung/test/", "s3://images/lung/test/a.png", FOLDER)
    assert not in_test_set("test/", "s3://images/lung/train/a.png", FOLDER)
    assert not in_test_set("", "s3://images/lung/train/a.png", FOLDER)


def test_defaults_change_no_hash() -> None:
    assert ProjectConfig().hash == parse_config({"buckets": {"group_by": "", "test_set": ""}}, "t").hash
    assert "group_by" not in ProjectConfig().buckets.non_defaults
    assert ProjectConfig().hash != parse_config({"buckets": {"group_by": "{group}/*"}}, "t").hash


def test_images_of_a_patient_stand_in_one_bucket_and_each_counts(tmp_path: Path) -> None:
    world = world_of(tmp_path, buckets={"test": 0.3, "audit": 0.1, "group_by": "{group}/*"})
    images = {f"s3://images/p{i // 4:02d}/{i}.png": png(scene(i)) for i in range(60)}
    placed = take(world, images)
    assert len({f.group for f in placed}) == 15
    assert len({f.twins for f in placed}) == 60
    assert len({(f.group, f.bucket) for f in placed}) == 15
    assert {f.bucket for f in placed} == {Split.TRAIN, Split.TEST, Split.AUDIT}
    late = take(world, {"s3://images/p03/late.png": png(scene(99))})[0]
    assert (late.group, late.bucket) in {(f.group, f.bucket) for f in placed if "/p03/" in f.uri}


def test_an_own_test_set_is_the_test_bucket_and_nothing_else_is(tmp_path: Path) -> None:
    world = world_of(tmp_path, buckets={"test": 0.5, "audit": 0.1, "test_set": "test/"})
    images = {f"s3://images/{'test' if i % 4 == 0 else 'rest'}/{i}.png": png(scene(i)) for i in range(40)}
    images["s3://images/rest/copy.jpg"] = jpeg(scene(0), 60)
    placed = {f.uri: f for f in take(world, images)}
    copy = placed.pop("s3://images/rest/copy.jpg")
    assert {f.bucket for u, f in placed.items() if "/test/" in u} == {Split.TEST}
    assert Split.TEST not in {f.bucket for u, f in placed.items() if "/rest/" in u}
    assert copy.bucket is Split.TEST  # a copy of a test image never trains, and counts once with it
    assert copy.unit == placed["s3://images/test/0.png"].unit
