"""Names are locked: between processes and threads, until they are released or their process ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from srgan_cli.files import (
    lock,
)

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds `tmp_path/lock` until it is killed, or is sent a line."""
    code = (
        "import sys; from pathlib import Path; from srgan_cli.files import lock;"
        "held = lock(Path(sys.argv[1])); print(held is not None, flush=True); sys.stdin.readline(); held.release()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_a_lock_of_another_process_holds_until_it_is_released(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    assert lock(tmp_path / "lock") is None
    assert names(tmp_path) == {"lock"}
    other.communicate("done\n", timeout=30)
    held = lock(tmp_path / "lock")
    assert held is not None
    held.release()
    held.release()
    assert names(tmp_path) == set()


def test_a_lock_ends_with_its_process(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    held = lock(tmp_path / "lock")
    assert held is not None
    with held:
        assert lock(tmp_path / "lock") is None, "in the same process, too"


def test_any_thread_may_release_a_lock(tmp_path: Path) -> None:
    held = lock(tmp_path / "lock")
    assert held is not None
    thread = threading.Thread(target=held.release)
    thread.start()
    thread.join()
    again = lock(tmp_path / "lock")
    assert again is not None
    again.release()


def test_never_do_two_hold_a_lock_though_its_file_comes_and_goes(tmp_path: Path) -> None:
    inside, most = 0, 0
    guard, start = threading.Lock(), threading.Barrier(4)

    def work() -> None:
        nonlocal inside, most
        start.wait()
        taken = 0
        while taken < 50:
            if (held := lock(tmp_path / "lock")) is None:
                continue
            with guard:
                inside += 1
                most = max(most, inside)
            with guard:
                inside -= 1
            held.release()
            taken += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert names(tmp_path) == set()


@POSIX
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EIO])
def test_a_file_system_without_locks_blocks_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_locks(*_args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", no_locks)
    if number == errno.EIO:
        with pytest.raises(OSError):
            lock(tmp_path / "lock")
        return
    first, second = lock(tmp_path / "lock"), lock(tmp_path / "lock")
    assert first is not None
    assert second is not None
    first.release()
    second.release()
