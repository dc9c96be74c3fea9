"""ncnn in a separate process: loads a network, runs windows, and lists Vulkan devices."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from srgan_cli.errors import DeviceError

_START = "import sys; sys.path[:] = sys.argv[1:]; from srgan_cli.networks.ncnn_worker import serve; serve()"
# Timeout: a driver that does not answer this request will not answer others.
_PROBE_SECONDS = 30.0
# ncnn's messages before its process ends for lack of memory: VK_ERROR_OUT_OF_HOST_MEMORY and …_DEVICE_MEMORY.
_NO_MEMORY = ("failed -1\n", "failed -2\n")


@dataclass(frozen=True)
class VulkanDevice:
    """`kind` is discrete, integrated, virtual or cpu (Mesa's llvmpipe: a GPU in software)."""

    index: int
    title: str
    kind: str
    free_bytes: int


class NcnnError(RuntimeError):
    """ncnn failed, or its process ended."""


def is_installed() -> bool:
    return importlib.util.find_spec("ncnn") is not None


_asking = threading.Lock()


def vulkan_devices() -> tuple[VulkanDevice, ...]:
    """The devices that ncnn finds; determined once. Raises `DeviceError` if the driver fails."""
    with _asking:
        found = _ask_for_devices()
    if isinstance(found, str):
        raise DeviceError(found)
    return found


@functools.cache
def _ask_for_devices() -> tuple[VulkanDevice, ...] | str:
    """The devices, or the reason for the failure."""
    process = NcnnProcess()
    watch = threading.Timer(_PROBE_SECONDS, process.kill)
    watch.start()
    try:
        answer, _ = process.ask({"do": "devices"})
    except (NcnnError, MemoryError) as err:
        return f"the Vulkan driver failed when it was asked for its devices: {err}"
    finally:
        watch.cancel()
        process.close()
    return tuple(VulkanDevice(d["index"], d["title"], d["kind"], d["free"]) for d in answer["devices"])


class NcnnProcess:
    """Starts when created; ends with `close`, or when garbage-collected."""

    def __init__(self) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *filter(None, sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        self._lock = threading.Lock()
        self.close = weakref.finalize(self, _end, self._process, self._stderr)

    @property
    def is_alive(self) -> bool:
        return self.close.alive and self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()

    def load(self, param: bytes, weights: bytes, *, device: int | None, half: bool, threads: int) -> None:
        """Load a network onto a Vulkan device or (None) the CPU. Raises `NcnnError` or `MemoryError`, as `run` does."""
        message = {"do": "load", "param_bytes": len(param), "device": device, "half": half, "threads": threads}
        self.ask(message, param + weights)

    def run(
        self, low: npt.NDArray[np.float32], *, input_blob: str = "data", output_blob: str = "output"
    ) -> npt.NDArray[np.float32]:
        """(C, H, W) -> the network's result, (c, h, w)."""
        message = {"do": "run", "shape": low.shape, "input": input_blob, "output": output_blob}
        answer, data = self.ask(message, np.ascontiguousarray(low, np.float32).data.cast("B"))
        return np.frombuffer(data, np.float32).reshape(answer["shape"])

    def ask(self, message: dict[str, Any], payload: bytes | memoryview = b"") -> tuple[dict[str, Any], bytearray]:
        stdin, stdout = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        with self._lock:
            try:
                stdin.write(json.dumps({**message, "bytes": len(payload)}).encode() + b"\n")
                stdin.write(payload)
                stdin.flush()
                answer = json.loads(stdout.readline())
                data = bytearray(answer["bytes"])
                if stdout.readinto(data) != len(data):  # type: ignore[attr-defined]  # a BufferedReader has it
                    raise EOFError
            except (OSError, ValueError, EOFError) as err:
                raise self._death() from err
        if "memory" in answer:
            raise MemoryError(answer["memory"])
        if "error" in answer:
            raise NcnnError(answer["error"])
        return answer, data

    def _death(self) -> NcnnError | MemoryError:
        """Why the process has ended, from its last output."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._stderr.seek(0)
        said = self._stderr.read()[-4000:].decode("utf-8", "replace")
        if any(words in said for words in _NO_MEMORY):
            return MemoryError("the Vulkan driver ran out of memory")
        code = self._process.returncode
        how = f"by signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"with code {code}"
        last = said.strip().splitlines()[-1:] or ["without a message"]
        return NcnnError(f"its process ended {how} ({last[0]})")


def _end(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            cast(IO[bytes], pipe).close()
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    stderr.close()
