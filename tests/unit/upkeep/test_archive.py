"""A backup's file: whole or not there, and never trusted when it is read."""

from __future__ import annotations

import errno
import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from labelloop.errors import CorruptArtefactError, SettingsError
from labelloop.objects.formats import Kind, write
from labelloop.records.json import digest
from operations.upkeep.archive import MANIFEST, ArchiveReader, ArchiveWriter, is_safe
from operations.upkeep.backup import image_name, image_uri

OBJECTS = {"project.json": b"{}", "state/a/b.json": b"one", "images/pics/c%2Fd.png": bytes(3_000_000)}


def silent(_what: str, _done: int, _of: int) -> None:
    return


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "b.tar"
    with ArchiveWriter(path) as archive:
        for name, data in OBJECTS.items():
            archive.add(name, data)
        archive.finish({"tasks": 3})
    return path


@contextmanager
def reading(path: Path) -> Iterator[ArchiveReader]:
    archive = ArchiveReader(path)
    try:
        yield archive
    finally:
        archive.close()


def forged(path: Path, *infos: tarfile.TarInfo, data: bytes = b"x", listed: bool = True) -> Path:
    """A tar that anybody could have made, with a manifest that fits."""
    with tarfile.open(path, "w") as tar:
        for info in infos:
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))
        rows = [[info.name, len(data), digest(data)] for info in infos] if listed else []
        manifest = write(Kind.BACKUP, {"objects": rows})
        info = tarfile.TarInfo(MANIFEST)
        info.size = len(manifest)
        tar.addfile(info, io.BytesIO(manifest))
    return path


def test_what_is_written_is_read(path: Path) -> None:
    with reading(path) as archive:
        archive.verify(silent)
        assert {name: archive.get(name) for name in archive.names()} == OBJECTS
        assert archive.names("state/") == ["state/a/b.json"]
        assert archive.facts["tasks"] == 3
        assert archive.size("state/a/b.json") == 3


def test_nobody_else_may_read_it(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    path.write_text("the one before")
    with pytest.raises(RuntimeError), ArchiveWriter(path) as archive:
        archive.add("state/a", b"1")
        raise RuntimeError
    assert path.read_text() == "the one before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("where", [".", "no/such/folder/b.tar"])
def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, where: str) -> None:
    with pytest.raises(SettingsError, match=r"folder|--out"), ArchiveWriter(tmp_path / where):
        pass


@pytest.mark.parametrize("step", ["addfile", "close"])
def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, step, full)
    with pytest.raises(SettingsError, match="is the disk full"), ArchiveWriter(tmp_path / "b.tar") as archive:
        archive.add("state/a", b"1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [1, 700, 4_000, 3_000_000])
def test_a_file_that_was_cut_off_is_refused(path: Path, cut: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-10_240][:-cut])
    with pytest.raises(CorruptArtefactError, match="Nothing was restored"):
        ArchiveReader(path)


def test_one_bit_is_noticed_before_anything_is_done(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"one")] ^= 1
    path.write_bytes(bytes(data))
    with reading(path) as archive:
        with pytest.raises(CorruptArtefactError, match=r"state/a/b\.json does not have the hash"):
            archive.verify(silent)
        with pytest.raises(CorruptArtefactError):
            archive.get("state/a/b.json")


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, b"\x1f\x8b" + bytes(2000)])
def test_what_is_no_backup_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b.tar"
    path.write_bytes(content)
    with pytest.raises(CorruptArtefactError):
        ArchiveReader(path)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        ArchiveReader(tmp_path / "none.tar")


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "state/../../x", "state//x", "state/./x", "state/", "other/x", "state\\..\\x",
     "statex"],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    assert not is_safe(name)
    with pytest.raises(CorruptArtefactError, match="no plain object"):
        ArchiveReader(forged(tmp_path / "b.tar", tarfile.TarInfo(name)))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("state/a")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(CorruptArtefactError, match="no plain object"):
        ArchiveReader(forged(tmp_path / "b.tar", info))


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptArtefactError, match="twice"):
        ArchiveReader(forged(tmp_path / "b.tar", tarfile.TarInfo("state/a"), tarfile.TarInfo("state/a")))


def test_a_member_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    info = tarfile.TarInfo("state/a")
    info.size = 9 << 40
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(CorruptArtefactError):
        ArchiveReader(path)


def test_an_object_that_the_manifest_lacks_is_refused(tmp_path: Path) -> None:
    path = forged(tmp_path / "b.tar", tarfile.TarInfo("state/a"), listed=False)
    with reading(path) as archive, pytest.raises(CorruptArtefactError, match="not in its manifest"):
        archive.verify(silent)


def test_an_object_that_is_missing_is_refused(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "c.tar"
    with tarfile.open(path) as before, tarfile.open(other, "w") as after:
        for info in before:
            if info.name != "state/a/b.json":
                after.addfile(info, before.extractfile(info))
    with reading(other) as archive, pytest.raises(CorruptArtefactError, match=r"missing, e\.g\. state/a/b\.json"):
        archive.verify(silent)


@pytest.mark.parametrize("manifest", [b"[]", b"{}", b'{"objects":[["a"]]}', b'{"objects":3}', b"\xff"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, manifest: bytes) -> None:
    path = tmp_path / "b.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo(MANIFEST)
        info.size = len(manifest)
        tar.addfile(info, io.BytesIO(manifest))
    with pytest.raises(CorruptArtefactError, match="manifest"):
        ArchiveReader(path)


@pytest.mark.parametrize("uri", ["s3://pics/a.png", "s3://pics/a//../b c%2F.png", "s3://pics/ä/é.png"])
def test_images_keep_their_address(uri: str) -> None:
    name = image_name(uri)
    assert is_safe(name)
    assert image_uri(name) == uri
