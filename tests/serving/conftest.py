"""A tiny model, and a server that runs it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from srgan_cli.config import EngineOptions
from srgan_cli.serving import app
from srgan_cli.serving.making import make
from srgan_cli.serving.server import HttpServer
from srgan_cli.serving.settings import ServeOptions
from tests.faults import save_tiny
from tests.serving.servers import running


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory) -> ServeOptions:
    model = save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors", 4, features=4)
    return ServeOptions(port=0, model=str(model), engine=EngineOptions("cpu", "fp32"))


@pytest.fixture(scope="session")
def server(options: ServeOptions) -> Iterator[HttpServer]:
    with running(options) as started:
        yield started


class Gate:
    """Holds the worker at its first band, so that what happens meanwhile can be looked at."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Semaphore(0), threading.Event()
        self.ended: list[BaseException] = []

    def wait(self, progress: Any) -> None:
        self.reached.release()
        try:
            while not self.opened.wait(0.01):
                progress(0.5)
        except BaseException as err:
            self.ended.append(err)
            raise


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    held = Gate()

    def gated(data: bytes, asked: Any, upscalers: Any, **limits: Any) -> Any:
        held.wait(limits["progress"])
        return make(data, asked, upscalers, **limits)

    monkeypatch.setattr(app, "make", gated)
    yield held
    held.opened.set()
