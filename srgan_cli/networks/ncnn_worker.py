"""The process that runs ncnn, started and used by `ncnn_process`.

ncnn ends its process when a Vulkan driver runs out of memory, and a driver or an untrusted file may crash it too. Here
that costs only one window. torch is not imported. A message is a line of JSON, followed by as many bytes as its "bytes"
says; each message gets one reply.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

# ncnn's own error code for memory that was refused.
_NO_MEMORY = -100
_KINDS = ("discrete", "integrated", "virtual", "cpu")


def serve() -> None:
    """Reply to messages until there are no more."""
    # Ctrl-C is handled by the parent, which closes the pipe to end this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a driver's output must not be mistaken for a reply
    with contextlib.suppress(EOFError):
        _answer_all(_Worker(), sys.stdin.buffer, answers)


def _answer_all(worker: _Worker, questions: BinaryIO, answers: BinaryIO) -> None:
    while line := questions.readline():
        message = json.loads(line)
        payload = _read(questions, message.get("bytes", 0))
        try:
            answer, data = worker.answer(message, payload)
        except MemoryError:
            answer, data = {"memory": "not enough memory"}, b""
        except Exception as err:  # noqa: BLE001 - told to the parent, who knows what to make of it
            answer, data = {"error": f"{type(err).__name__}: {err}"}, b""
        answers.write(json.dumps({**answer, "bytes": len(data)}).encode() + b"\n")
        answers.write(data)
        answers.flush()


def _read(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise EOFError("the parent is gone")
    return data


class _Worker:
    def __init__(self) -> None:
        self._net: Any = None

    def answer(self, message: Mapping[str, Any], payload: bytes) -> tuple[dict[str, Any], Any]:
        if message["do"] == "devices":
            return {"devices": _devices()}, b""
        if message["do"] == "load":
            return self._load(message, payload), b""
        assert message["do"] == "run"
        return self._run(message, payload)

    def _load(self, message: Mapping[str, Any], payload: bytes) -> dict[str, Any]:
        import ncnn

        net = ncnn.Net()
        net.opt.num_threads = message["threads"]
        net.opt.use_bf16_storage = False
        net.opt.use_vulkan_compute = message["device"] is not None
        for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(net.opt, name, message["half"])
        if message["device"] is not None:
            net.set_vulkan_device(message["device"])
        param_bytes = message["param_bytes"]
        # Its reader from memory accepts text only.
        with tempfile.TemporaryDirectory(prefix="srgan-") as folder:
            param, weights = Path(folder) / "net.param", Path(folder) / "net.bin"
            param.write_bytes(payload[:param_bytes])
            weights.write_bytes(payload[param_bytes:])
            if net.load_param(str(param)) or net.load_model(str(weights)):
                raise ValueError("ncnn cannot parse the file")
        self._net = net
        return {}

    def _run(self, message: Mapping[str, Any], payload: bytes) -> tuple[dict[str, Any], Any]:
        import ncnn

        low = np.frombuffer(payload, np.float32).reshape(message["shape"])
        extractor = self._net.create_extractor()
        # A copy, because on Vulkan ncnn assumes that channels begin at multiples of 16 bytes.
        extractor.input(message["input"], ncnn.Mat(low).clone())
        code, result = extractor.extract(message["output"])
        if code == _NO_MEMORY:
            raise MemoryError
        if code:
            raise RuntimeError(f"ncnn failed with code {code}")
        high = np.ascontiguousarray(np.array(result), np.float32)
        return {"shape": high.shape}, high.data.cast("B")


def _devices() -> list[dict[str, Any]]:
    import ncnn

    ncnn.create_gpu_instance()
    found = []
    for index in range(ncnn.get_gpu_count()):
        info = ncnn.get_gpu_info(index)
        free_bytes = ncnn.get_gpu_device(index).get_heap_budget() << 20
        found.append({"index": index, "title": info.device_name(), "kind": _KINDS[info.type()], "free": free_bytes})
    return found
