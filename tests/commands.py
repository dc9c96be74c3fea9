"""`srgan` in processes of its own, without two seconds of `import torch` for each.

One process imports once what `srgan upscale` imports. For each command it forks a process, which then is as any other:
it has its own signals, streams, folder and environment, and ends as `python -m srgan_cli` does. Where a test is about
what is imported, or when, it starts another Python instead.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

_MESSAGE_BYTES = 1 << 20
_MAIN = "import sys; from srgan_cli.cli import main; sys.exit(main(sys.argv[1:]))"


class Command:
    """A command that runs, with what tests ask of a `subprocess.Popen`. `prelude` is Python that runs before it."""

    def __init__(self, *arguments: str | bytes, prelude: str = "", stdin: bytes = b"", cwd: Path | None = None) -> None:
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        ours_err, theirs_err = os.pipe()
        self._connection = _connected()
        asked = {
            "arguments": [os.fsdecode(one) for one in arguments],
            "prelude": prelude,
            "cwd": str(cwd or Path.cwd()),
            "environment": dict(os.environ),
        }
        streams = (theirs_in, theirs_out, theirs_err)
        socket.send_fds(self._connection, [json.dumps(asked).encode()], streams)
        for descriptor in streams:
            os.close(descriptor)
        self._answers = self._connection.makefile("r")
        self.pid = int(self._answers.readline())
        self.stdin, self.stdout, self.stderr = open(ours_in, "wb"), open(ours_out, "rb"), open(ours_err, "rb")  # noqa: PTH123, SIM115
        self._input = stdin
        self.returncode: int | None = None
        self._ended = threading.Thread(target=self._wait, daemon=True)
        self._ended.start()

    def _wait(self) -> None:
        self.returncode = int(self._answers.readline() or -1)

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def communicate(self, timeout: float = 60) -> tuple[bytes, bytes]:
        """Everything that it says, until it has ended."""
        said = [b"", b""]

        def read(number: int, file: IO[bytes]) -> None:
            said[number] = file.read()

        files = enumerate((self.stdout, self.stderr))
        readers = [threading.Thread(target=read, args=(n, file)) for n, file in files if not file.closed]
        for reader in readers:
            reader.start()
        with contextlib.suppress(BrokenPipeError), self.stdin:
            self.stdin.write(self._input)
        for thread in (*readers, self._ended):
            thread.join(timeout)
        if self.returncode is None:
            self.send_signal(signal.SIGKILL)
            raise subprocess.TimeoutExpired("srgan", timeout)
        return said[0], said[1]

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_args: object) -> None:
        self.send_signal(signal.SIGKILL)
        self._ended.join()
        for file in (self.stdin, self.stdout, self.stderr, self._answers, self._connection):
            with contextlib.suppress(BrokenPipeError):
                file.close()


def run(*arguments: str | bytes, stdin: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    if not hasattr(os, "fork"):
        command = [sys.executable, "-m", "srgan_cli", *map(os.fsdecode, arguments)]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=60, cwd=cwd)
    with Command(*arguments, stdin=stdin, cwd=cwd) as running:
        out, err = running.communicate()
    assert running.returncode is not None
    return subprocess.CompletedProcess(arguments, running.returncode, out, err)


def _connected() -> socket.socket:
    """To the process that forks: one for all processes of this run of pytest, started by the first that needs it."""
    run, watched = os.environ.get("PYTEST_XDIST_TESTRUNUID"), os.getppid()
    if run is None:
        run, watched = _own_run(), os.getpid()
    folder = Path(tempfile.gettempdir()) / f"srgan-tests-{run}"
    folder.mkdir(mode=0o700, exist_ok=True)
    connection = socket.socket(socket.AF_UNIX)
    with FileLock(folder / "lock"):
        try:
            connection.connect(str(folder / "socket"))
        except FileNotFoundError:
            _start(folder / "socket", watched)
            connection.connect(str(folder / "socket"))
        except BaseException:
            connection.close()
            raise
    return connection


@cache
def _own_run() -> str:
    return uuid.uuid4().hex


def _start(address: Path, watched: int) -> None:
    command = [sys.executable, "-c", "from tests.commands import serve; serve()", str(address), str(watched)]
    # A test may have changed the folder, and the one of `tests` is on the path of this process alone.
    root = Path(__file__).resolve().parent.parent
    started = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=root, check=True, start_new_session=True
    )
    assert started.stdout == b"ready\n"


# -------------------------------------------------------------------------------------------- in the process that forks


def serve() -> None:
    """Forks a keeper for each connection, which forks the command and says how it ended. Ends with pytest."""
    address, watched = Path(sys.argv[1]), int(sys.argv[2])
    if os.fork():  # not waited for: it outlives the test that started it
        os._exit(0)
    import cv2  # noqa: F401
    import torch  # noqa: F401

    from srgan_cli.cli import console, estimate, plan_console, upscale, watch  # noqa: F401
    from srgan_cli.engine import upscaler  # noqa: F401
    from srgan_cli.engine.backends import choice  # noqa: F401
    from srgan_cli.networks import weights  # noqa: F401
    from srgan_cli.upscaling import batch, measuring, session, stopping, warming, watching  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are not waited for
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        listener.settimeout(1)
        os.write(1, b"ready\n")
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        while _is_there(watched):
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                with connection:
                    if os.fork() == 0:
                        listener.close()
                        connection.setblocking(True)
                        _keep(connection)
                        return
    shutil.rmtree(address.parent, ignore_errors=True)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _keep(connection: socket.socket) -> None:
    """In the keeper, ends it; in the command, returns the way that Python ends by itself."""
    data, streams, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, 3)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become(json.loads(data), streams)
        return
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for descriptor in streams:
        os.close(descriptor)
    connection.sendall(f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(asked: dict[str, Any], streams: Sequence[int]) -> None:
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["cwd"])
    sys.argv[1:] = asked["arguments"]
    exec(f"{asked['prelude']}\n{_MAIN}", {"__name__": "__main__"})
