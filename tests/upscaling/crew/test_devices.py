"""The names of devices and workers, and invalid ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from srgan_cli.config import EngineOptions, RayOptions, WorkerOptions
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.errors import DeviceError, SettingsError
from tests.upscaling.batch.runs import Recorder
from tests.upscaling.crews import session

pytestmark = pytest.mark.timeout(120)


def test_devices_and_their_workers() -> None:
    assert EngineOptions("cuda:0,cuda:1").workers == (
        WorkerOptions("cuda:0", "cuda:0"),
        WorkerOptions("cuda:1", "cuda:1"),
    )
    assert EngineOptions("cpu:2x8").workers == (WorkerOptions("cpu:1", "cpu", 8), WorkerOptions("cpu:2", "cpu", 8))
    assert [one.has_several_devices for one in map(EngineOptions, ("cpu", "cuda:1", "auto"))] == [False] * 3
    assert all(one.has_several_devices for one in map(EngineOptions, ("cuda:all", "cpu:1x1", "cpu,cuda:0")))


@pytest.mark.parametrize("device", ["cpu:0x1", "cpu:1x0", "cpu:2", "all", "cuda:all:1", "cpu,", ",cpu", "cpu:2x"])
def test_devices_that_make_no_sense(device: str) -> None:
    with pytest.raises(SettingsError, match="device"):
        EngineOptions(device)


def test_all_of_devices_that_there_are_not(twelve: Path, model: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there are some")
    with pytest.raises(DeviceError, match="there is no such device here"):
        session(twelve, model, engine=EngineOptions("cuda:all")).run(Recorder())


def test_one_network_runs_on_one_device() -> None:
    from tests.faults import tiny_model

    with pytest.raises(SettingsError, match="several devices"):
        Upscaler(tiny_model(), EngineOptions("cpu:2x1"))


@pytest.mark.parametrize("address", ["photos/", "", "ray:/x", "in.jpg"])
def test_what_is_no_cluster(address: str) -> None:
    with pytest.raises(SettingsError, match="ray"):
        RayOptions(address)


def test_ray_that_is_missing_is_a_sentence(twelve: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match="--ray needs Ray: pip install"):
        session(twelve, model, ray=RayOptions()).run(Recorder())
