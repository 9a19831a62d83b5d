"""Decoded images: each once, intact whatever is killed, shared by processes."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelloop.config.project import BackboneSpec
from labelloop.config.training import Retrain
from labelloop.errors import ImageUnreadableError, NotEnoughLabelsError, StorageError
from labelloop.model import net
from labelloop.records.images import Example, Split
from labelloop.records.json import digest
from retrain_worker.training import data as module
from retrain_worker.training.data import PixelSource, parts_of
from retrain_worker.training.pixel_cache import INDEX, ROWS, PixelCache


def pixels(n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((3, 4, 4), n, dtype=np.uint8)


def opened(path: Path) -> PixelCache:
    return PixelCache(path, {"size": 4}, 4)


def test_what_was_added_is_there_in_any_order(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    for n in range(5):
        cache.add(f"h{n}", pixels(n))
    cache.add("h3", pixels(99))  # known: the content decides
    found = cache.images(["h4", "h0", "h3"])
    assert found[np.array([0, 1, 2])][:, 0, 0, 0].tolist() == [4, 0, 3]
    assert found[slice(1, 3)][:, 0, 0, 0].tolist() == [0, 3]
    assert cache.missing(["h0", "h9", "h9"]) == ["h9"]
    assert len(cache.images([])[slice(0, 3)]) == 0


def test_two_processes_see_each_others_images(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    first.add("a", pixels(1))
    second.add("b", pixels(2))
    first.add("c", pixels(3))
    for cache in (first, second, opened(tmp_path)):
        assert cache.images(["a", "b", "c"])[slice(None)][:, 0, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("torn", ["row", "line", "row without its line"])
def test_a_killed_writer_leaves_nothing_half(tmp_path: Path, torn: str) -> None:
    opened(tmp_path).add("a", pixels(1))
    (folder,) = (tmp_path / "pixels").iterdir()
    with (folder / ROWS).open("ab") as rows:
        rows.write(bytes([7] * (20 if torn == "row" else 48)))
    if torn == "line":
        with (folder / INDEX).open("ab") as index:
            index.write(b'"tor')
    again = opened(tmp_path)
    again.add("b", pixels(2))
    for cache in (again, opened(tmp_path)):
        assert cache.images(["a", "b"])[slice(None)][:, 0, 0, 0].tolist() == [1, 2]


def test_another_preprocessing_is_another_cache(tmp_path: Path) -> None:
    opened(tmp_path).add("a", pixels(1))
    assert PixelCache(tmp_path, {"size": 4, "gray": True}, 4).missing(["a"]) == ["a"]


# --- examples to parts


@dataclass
class Pictures:
    """A reader that fails as it is told to, and counts."""

    data: dict[str, bytes]
    trouble: dict[str, Exception] = field(default_factory=dict)
    often: int = 0  # times that the trouble lasts
    asked: list[str] = field(default_factory=list)

    def read(self, uri: str) -> tuple[bytes, str]:
        self.asked.append(uri)
        if uri in self.trouble and self.asked.count(uri) <= self.often:
            raise self.trouble[uri]
        return self.data[uri], "etag"


def picture(n: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), n, dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def examples(count: int, bucket: Split = Split.TRAIN) -> list[Example]:
    return [Example(n, f"s3://images/{n}", f"group{n}", bucket, "ab"[n % 2]) for n in range(count)]


Make = Callable[..., PixelSource]


@pytest.fixture
def source(tmp_path: Path) -> Make:
    def make(count: int, **trouble: object) -> PixelSource:
        found = {f"s3://images/{n}": picture(n) for n in range(count)}
        backbone = net.build(BackboneSpec(name="pixels"), [])
        cache = PixelCache(tmp_path, backbone.record.preprocessing, backbone.square.size)
        contents = {uri: digest(data) for uri, data in found.items()}
        return PixelSource(Pictures(found, **trouble), backbone, cache, contents)  # type: ignore[arg-type]

    return make


def nothing(*_: object) -> None:
    pass


def test_each_image_is_fetched_and_decoded_once(source: Make) -> None:
    made = source(40)
    for _ in range(2):
        parts = parts_of(examples(40), made, Retrain(validation=0.25), 3, nothing)
    assert isinstance(made.images, Pictures)
    assert sorted(made.images.asked) == sorted(made.contents)
    assert len(parts.train) + len(parts.validation) == 40
    assert parts.classes == ("a", "b")
    for part in (parts.train, parts.validation):
        shown = part.images[slice(None)][:, 0, 0, 0]
        assert [parts.classes[t] for t in part.targets] == ["ab"[int(n) % 2] for n in shown]


@pytest.mark.parametrize("bucket", [Split.TEST, Split.AUDIT])
def test_an_image_that_judges_is_refused_before_it_is_read(source: Make, bucket: Split) -> None:
    made = source(20)
    trap = Example(5, "s3://images/5", "group5", bucket, "a")
    with pytest.raises(ValueError, match="never trains"):
        parts_of([*examples(5), trap, *examples(20)[6:]], made, Retrain(), 3, nothing)
    assert isinstance(made.images, Pictures)
    assert made.images.asked == []


def test_broken_and_replaced_images_are_left_out(source: Make) -> None:
    made = source(20, trouble={"s3://images/3": ImageUnreadableError("broken")}, often=9)
    assert isinstance(made.images, Pictures)
    made.images.data["s3://images/4"] = picture(200)
    parts = parts_of(examples(20), made, Retrain(validation=0), 3, nothing)
    assert sorted(parts.train.images[slice(None)][:, 0, 0, 0].tolist()) == [n for n in range(20) if n not in (3, 4)]


def test_trouble_of_storage_is_waited_out(source: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST_S", 0.001)
    made = source(10, trouble={"s3://images/3": StorageError("503")}, often=2)
    assert len(parts_of(examples(10), made, Retrain(validation=0), 3, nothing).train) == 10
    lasting = source(12, trouble={"s3://images/11": StorageError("503")}, often=99)
    with pytest.raises(StorageError):
        parts_of(examples(12), lasting, Retrain(validation=0), 3, nothing)


def test_one_class_is_not_enough(source: Make) -> None:
    with pytest.raises(NotEnoughLabelsError):
        parts_of(examples(4), source(4), Retrain(), 3, nothing)
