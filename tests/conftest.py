"""Common settings of all tests: one thread, a separate cache, and no GPU tests without a GPU."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before anything imports torch, and for the processes that tests start: tiny networks run fastest on one thread.
os.environ["OMP_NUM_THREADS"] = "1"
# Where a test asks for two threads, they wait as the program's do: by default, each wait of a thread whose core another
# process has takes 14 ms of the other core (`srgan_cli.threads`).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ["VIPS_WARNING"] = "1"  # as the program has it; but a test may import pyvips first
# Neither the processes that tests start nor the next run of pytest need compile everything again: to rewrite the
# assertions of all tests takes four seconds of each process. (Python reads the variable when it starts.)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_OF_TESTS = ("SRGAN_TEST_DATA", "SRGAN_KEEP_BLOCKS")

settings.register_profile("srgan", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("srgan"), max_examples=1000)  # --hypothesis-profile=thorough
settings.load_profile("srgan")

# Modules are millions of objects that nothing frees: to look through them again and again takes a third of collecting.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)  # by default it is 4 % of all work: tests leave few cycles, and small ones
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """No test cuts the power, and waiting for the disk takes longer than all else; `test_files` looks at the calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tests neither read nor change the cache and models of the user who runs them."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("LOCALAPPDATA", str(folder))
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def no_config() -> Iterator[None]:
    """The defaults of the person who runs the tests are not those of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SRGAN_") and name not in _OF_TESTS]:
            patch.delenv(name)
        patch.setenv("SRGAN_CONFIG", "")
        yield


@pytest.fixture(scope="session", autouse=True)
def own_signals() -> Iterator[None]:
    """The command turns SIGTERM into Ctrl-C; in this process it must not stay so.

    And Ctrl-C works: a shell script that starts pytest with `&` has it ignored, here and in all that tests start.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    if before[signal.SIGINT] == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own to work in, with names as a person types them."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def tiny_x2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of four features that enlarges twice; no test changes it."""
    return _saved(tmp_path_factory, 2)


@pytest.fixture(scope="session")
def tiny_x4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that enlarges four times."""
    return _saved(tmp_path_factory, 4)


def _saved(folders: pytest.TempPathFactory, scale: int) -> Path:
    from tests.faults import save_tiny  # with torch, which not every test needs

    return save_tiny(folders.mktemp("weights") / "tiny.safetensors", scale, features=4)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wanting = [item for item in items if item.get_closest_marker("gpu") is not None]
    if not wanting:
        return
    import torch

    if not torch.cuda.is_available():
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
