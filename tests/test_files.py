"""Files are published completely or not at all; the location of the cache."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from srgan_cli import files
from srgan_cli.files import (
    append_line,
    cache_folder,
    check_publishable,
    lock,
    part_name,
    publish_bytes,
    publish_text,
    publishing,
    publishing_path,
    reason,
    remove_parts,
    stale_parts,
)
from tests.faults import disk_full

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_bytes(b"before")
    return path


# ----------------------------------------------------------------------------------------------------------- publishing


def test_what_is_published_is_there_and_nothing_else(target: Path) -> None:
    publish_text(target, "ä\r\n\udcff", errors="surrogateescape")
    assert target.read_bytes() == "ä\r\n".encode() + b"\xff"
    publish_bytes(target, b"\x00\n")
    assert target.read_bytes() == b"\x00\n"
    with publishing(target) as file:
        file.write(b"12345")
        file.seek(1)
        file.write(b"x")
        assert target.read_bytes() == b"\x00\n", "until the block ends"
    assert target.read_bytes() == b"1x345"
    with publishing_path(target) as part:
        assert part.parent == target.parent
        part.write_bytes(b"by path")
    assert target.read_bytes() == b"by path"
    assert names(target.parent) == {"a.txt"}


@pytest.mark.parametrize("step", ["fsync", "link", "utime", "replace", "write"])
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["full disk", "Ctrl-C"])
def test_a_fault_at_any_step_leaves_what_was_there(
    target: Path, monkeypatch: pytest.MonkeyPatch, step: str, fault: BaseException
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise fault

    place = {"replace": Path}.get(step, os)
    if step != "write":
        monkeypatch.setattr(place, step, fail)
    if step == "link":
        monkeypatch.setattr(Path, "replace", fail)

    def attempt() -> None:
        with publishing(target, overwrite=step != "link", modified_ns=1) as file:
            file.write(b"after")
            if step == "write":
                fail()

    with pytest.raises(type(fault)):
        attempt()
    assert names(target.parent) == {"a.txt"}
    assert target.read_bytes() == b"before"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_full_in_the_last_block(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffered data is written when the file is closed; a failure at that point is reported like any other."""
    opened = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, *mode: opened("/dev/full", os.O_RDWR))
    with pytest.raises(OSError) as caught, publishing(target) as file:
        file.write(b"after")
    assert "the disk is full" in reason(caught.value)
    monkeypatch.undo()
    assert target.read_bytes() == b"before"


KILLED = """
import os, signal, sys
from pathlib import Path
from srgan_cli import files
real = {real}
def killed(*args, **options):
    {before}
    os.kill(os.getpid(), signal.SIGKILL)
{name} = killed
with files.publishing(Path(sys.argv[1]), overwrite={overwrite}) as file:
    file.write(b"after")
"""


@POSIX
@pytest.mark.parametrize(
    ("name", "done", "overwrite", "expected"),
    [
        ("os.fsync", False, True, b"before"),
        ("os.fsync", True, True, b"before"),
        ("os.replace", False, True, b"before"),
        ("files._sync_folder", False, True, b"after"),
        ("os.link", True, False, b"after"),
    ],
)
def test_killed_between_any_two_steps_the_name_holds_one_or_the_other(
    target: Path, name: str, done: bool, overwrite: bool, expected: bytes
) -> None:
    if not overwrite:
        target.unlink()
    # `Path.replace` is `os.replace`; patched there it holds for every Python.
    name = {"os.replace": "Path.replace"}.get(name, name)
    code = KILLED.format(name=name, real=name, before="real(*args, **options)" if done else "pass", overwrite=overwrite)
    ended = subprocess.run([sys.executable, "-c", code, str(target)], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert target.read_bytes() == expected
    left = stale_parts(target.parent)
    assert len(left) == (expected == b"before" or not overwrite)
    assert set(left.values()) <= {part_name(target)}
    remove_parts(target.parent)
    assert names(target.parent) == {"a.txt"}
    publish_bytes(target, b"again")
    assert target.read_bytes() == b"again"


def test_without_overwrite_what_has_appeared_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new.txt"

    def attempt() -> None:
        with publishing(target, overwrite=False) as file:
            file.write(b"mine")
            target.write_bytes(b"theirs")

    with pytest.raises(FileExistsError):
        attempt()
    monkeypatch.setattr(os, "link", disk_full)  # as on a file system that has none
    with pytest.raises(FileExistsError):
        attempt()
    assert target.read_bytes() == b"theirs"
    target.unlink()
    publish_bytes(target, b"mine", overwrite=False)
    assert target.read_bytes() == b"mine"
    assert names(tmp_path) == {"new.txt"}


def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    target = tmp_path / "one.txt"
    start, won = threading.Barrier(8), list[int]()

    def attempt(number: int) -> None:
        start.wait()
        with contextlib.suppress(FileExistsError):
            publish_bytes(target, str(number).encode(), overwrite=False)
            won.append(number)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [int(target.read_bytes())] == won


@POSIX
def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        check_publishable(pipe)
        publish_bytes(pipe, b"through")
        assert os.read(reader, 100) == b"through"
        with pytest.raises(OSError, match="not a regular file"), publishing_path(pipe):
            pass
    finally:
        os.close(reader)
    assert files.is_special(pipe)


@POSIX
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to(target: Path) -> None:
    target.parent.chmod(0o500)
    try:
        for attempt in (lambda: publish_bytes(target, b"x"), lambda: check_publishable(target), lambda: lock(target)):
            with pytest.raises(OSError) as caught:
                attempt()
            assert reason(caught.value) == "you have no permission to write there"
    finally:
        target.parent.chmod(0o700)
    assert target.read_bytes() == b"before"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
        (errno.ENOENT, "its folder"),
        (errno.EDQUOT, "disk is full"),
        (errno.EIO, "error"),
    ],
)
def test_reasons_are_plain(number: int, words: str) -> None:
    assert words in reason(OSError(number, os.strerror(number)))


@POSIX
@pytest.mark.parametrize(
    ("flag", "words"), [(os.ST_RDONLY, "is on a disk that is read-only"), (0, "no permission to write into")]
)
def test_why_a_folder_cannot_be_written_to(
    flag: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert files.why_not_writable(tmp_path) is None
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=flag))
    assert words in str(files.why_not_writable(tmp_path))


def test_what_could_not_be_published_is_known_before(target: Path) -> None:
    check_publishable(target)
    assert names(target.parent) == {"a.txt"}
    with pytest.raises(OSError):
        check_publishable(target / "below a file")
    with pytest.raises(IsADirectoryError):
        check_publishable(target.parent)
    with pytest.raises(FileNotFoundError):
        check_publishable(target.parent / "none" / "a")


def test_names_as_long_as_names_may_be(tmp_path: Path) -> None:
    publish_bytes(tmp_path / ("n" * 255), b"x")
    assert part_name(tmp_path / ("n" * 255)) != part_name(tmp_path / ("n" * 254))
    with pytest.raises(OSError) as caught:
        publish_bytes(tmp_path / ("n" * 256), b"x")
    assert "too long" in reason(caught.value)


def test_only_parts_are_parts(tmp_path: Path) -> None:
    for name in ("a.part", ".a.part", ".a.0123456789ab.part.png", ".a.0123456789AB.part"):
        (tmp_path / name).touch()
    (tmp_path / ".a.0123456789ab.part").touch()
    assert stale_parts(tmp_path) == {tmp_path / ".a.0123456789ab.part": "a"}
    assert stale_parts(tmp_path / "none") == {}


# --------------------------------------------------------------------------------------------------------- cache folder


def test_the_cache_has_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder().name == "srgan"
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_folder() == tmp_path / "srgan"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_folder() == tmp_path / ".cache" / "srgan"


@POSIX
def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    with pytest.raises(RuntimeError, match="home"):
        cache_folder()


# ---------------------------------------------------------------------------------------------------------- one module


def test_no_other_module_renames_syncs_or_locks() -> None:
    root = Path(files.__file__).parent
    for path in [*root.rglob("*.py"), *(root.parent / "benchmarks").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        if path.name != "files.py":
            for word in (
                "import fcntl",
                "filelock import",
                "msvcrt",
                ".rename(",
                "os.replace(",
                "os.link(",
                "import platformdirs",
            ):
                assert word not in text, f"{path.name}: {word}"


def test_all_folders_of_the_user_are_named_for_srgan_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, platformdirs puts a folder for the author in between, unless it is told not to."""
    asked: list[object] = []

    def noted(*_: object, appauthor: object = None, **__: object) -> Path:
        asked.append(appauthor)
        return Path.cwd()

    for name in ("user_cache_dir", "user_data_dir", "user_config_path"):
        monkeypatch.setattr(f"platformdirs.{name}", noted)
    for folder in (cache_folder, files.data_folder, files.config_folder):
        folder()
    assert asked == [False] * 3


def test_lines_are_appended_and_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "a.jsonl", list[bytes]()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(path.read_bytes())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    path.write_bytes(b'"first"\n"to')  # cut short by a power cut
    append_line(path, '"second"')
    append_line(path, '"third"')
    assert path.read_text().split() == ['"first"', '"to', '"second"', '"third"']
    assert synced == [b'"first"\n"to\n"second"\n', path.read_bytes()], "all of it has left the process by then"


# ---------------------------------------------------------------------------------------------------------- discarding


def test_a_file_that_is_still_held_is_removed_at_exit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where a mapped file cannot be removed."""
    held, other = tmp_path / "held.scratch", tmp_path / "other.scratch"
    for path in (held, other):
        path.write_bytes(b"x")
    real = Path.unlink
    late: list[bool] = []

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path == held and not late:
            raise PermissionError(errno.EACCES, "used by another process")
        real(path, missing_ok=missing_ok)

    registered: list[object] = []
    monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.setattr("atexit.register", registered.append)
    for path in (held, other):
        files.discard(path)
    assert held.exists()
    assert not other.exists()
    late.append(True)
    assert registered == [files._discard_late]
    files._discard_late()
    assert not held.exists()


def test_a_new_file_has_its_name_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.create(tmp_path / "a", b"all of it")
    assert (tmp_path / "a").read_bytes() == b"all of it"
    assert (tmp_path / "a").stat().st_mode & 0o111 == 0
    with pytest.raises(FileExistsError):
        files.create(tmp_path / "a", b"other")
    if hasattr(os, "O_TMPFILE"):
        with monkeypatch.context() as patch:
            patch.setattr(files, "sync", killed)
            with pytest.raises(KeyboardInterrupt):
                files.create(tmp_path / "b", b"half")
        assert not (tmp_path / "b").exists()
        monkeypatch.delattr(os, "O_TMPFILE")
    files.create(tmp_path / "c", b"where the system does not know that")
    with pytest.raises(FileExistsError):
        files.create(tmp_path / "c", b"other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


def killed(*_: object) -> None:
    raise KeyboardInterrupt
