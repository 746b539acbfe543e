"""Files: whole or not at all, with the mode that they had, through links, up to a bound."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from secateur.disk.storage import apart, read, write_atomically
from secateur.errors import SecateurError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_new_file_follows_the_umask(tmp_path: Path, umask: None) -> None:
    write_atomically(tmp_path / "new", b"1")
    assert mode(tmp_path / "new") == 0o640


@pytest.mark.parametrize("kept", [0o600, 0o400, 0o644, 0o666, 0o755])
def test_a_file_keeps_its_mode(kept: int, tmp_path: Path, umask: None) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    file.chmod(kept)
    write_atomically(file, b"new")
    assert (file.read_bytes(), mode(file)) == (b"new", kept)


def test_a_file_is_never_more_open_than_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even its temporary file, before it has any content."""
    file, seen = tmp_path / "file", list[int]()
    file.write_bytes(b"secret")
    file.chmod(0o600)
    original = os.fchmod

    def watch(handle: int, wanted: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(handle).st_mode))
        original(handle, wanted)

    monkeypatch.setattr(os, "fchmod", watch)
    write_atomically(file, b"secret 2")
    assert seen == [0o600]


def test_the_umask_of_the_process_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It belongs to all threads."""

    def changed(_: int) -> int:
        raise AssertionError

    monkeypatch.setattr(os, "umask", changed)
    write_atomically(tmp_path / "file", b"1")
    write_atomically(tmp_path / "file", b"2")


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_written_through(there: bool, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    file, link = tmp_path / "far" / "file", tmp_path / "link"
    link.symlink_to(Path("far") / "file")
    if there:
        file.write_bytes(b"old")
        file.chmod(0o600)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    assert not there or mode(file) == 0o600
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["file"]


def test_devices_and_pipes_stay_what_they_are(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, b"data")
        assert os.read(reader, 10) == b"data"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_the_longest_name_is_a_name(tmp_path: Path) -> None:
    file = tmp_path / ("n" * 255)
    write_atomically(file, b"1")
    assert file.read_bytes() == b"1"


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for name, says in [
        ("folder", "Is a directory"),
        ("no/file", "No such file"),
        ("file/file", "Not a directory"),
        ("loop", "symbolic links"),
        ("n" * 256, "too long"),
    ]:
        with pytest.raises(SecateurError, match=f"{name}: cannot be written: .*{says}"):
            write_atomically(tmp_path / name, b"1")
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "file", "loop"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_all_or_nothing(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    kind = SecateurError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(kind):
        write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_is_read_up_to_a_bound(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read(file, 5, "a thing") == b"12345"
    assert read(file, 5, "a thing", first=2) == b"12"
    with pytest.raises(SecateurError, match="file: more than 4 bytes, too large for a thing"):
        read(file, 4, "a thing")
    with pytest.raises(SecateurError, match="more than 4 bytes"):
        read(file, 4, "a thing", first=2)
    with file.open("wb") as large:
        large.truncate(1 << 36)  # 64 GB, of which nothing is stored
    with pytest.raises(SecateurError, match="more than 67,108,864 bytes"):
        read(file, 1 << 26, "a thing")


def test_what_has_no_size_is_read_up_to_a_bound() -> None:
    with pytest.raises(SecateurError, match="more than 1,000 bytes"):
        read(Path("/dev/zero"), 1000, "a thing")
    assert read(Path("/dev/null"), 1000, "a thing") == b""


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for name, says in [("none", "No such file"), ("", "Is a directory"), ("\0", "null byte")]:
        with pytest.raises(SecateurError, match=f"cannot be read: .*{says}"):
            read(tmp_path / name, 10, "a thing")


@pytest.mark.parametrize("other", ["in", "./in", "link", "hard", "folder/../in", "linked/in"])
def test_one_file_by_any_name(other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").write_text("1")
    Path("link").symlink_to("in")
    os.link("in", "hard")
    Path("folder").mkdir()
    Path("linked").symlink_to(tmp_path)
    for first, second in ((other, tmp_path / "in"), (tmp_path / "in", other)):
        with pytest.raises(SecateurError, match=r"is an input \(.*\) and would be lost"):
            apart([Path(first)], [second])
    apart([Path("new"), Path("folder")], [other, "new", "folder", "none"])
    apart([Path("/dev/null")], ["/dev/null"])
