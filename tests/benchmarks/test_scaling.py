"""The simulated leading process matches the real one; several workers are measured with the real command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks import scaling
from srgan_cli.imaging.reading import read_header
from tests.faults import save_tiny
from tests.upscaling.pictures import picture


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(3):
        picture(tmp_path / "photos" / f"{number}.png", 40 + number, 30, seed=number)
    return tmp_path / "photos"


def test_a_run_of_fake_workers_is_recorded_whole() -> None:
    found = scaling.driver(workers=3, pictures=100)
    assert (found["workers"], found["pictures"]) == (3, 100)
    assert isinstance(found["pictures_per_cpu_second"], int)


def test_what_is_measured_with(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    (tmp_path / "large").mkdir()
    many = sorted(path.name for path in scaling.fill(tmp_path / "many", photos, 7).iterdir())
    assert many == [f"{number:06}.png" for number in range(7)]
    header = read_header(scaling.paste(tmp_path / "large", photos, 0.75) / "large.jpg", max_pixels=1 << 30)
    assert (header.width, header.height) == (1000, 750)


WAYS = [
    pytest.param(["processes", "--pictures", "4"], marks=pytest.mark.slow),
    *(
        pytest.param(
            ["ray", *what],
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif("SRGAN_TEST_RAY" not in os.environ, reason="SRGAN_TEST_RAY=1 runs a Ray cluster"),
                pytest.mark.xdist_group("ray"),
            ],
        )
        for what in (["--pictures", "4"], ["--megapixels", "1.2"])
    ),
]


@pytest.mark.timeout(500)
@pytest.mark.parametrize("arguments", WAYS, ids=" ".join)
def test_workers_beside_one(
    arguments: list[str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one core")
    model = save_tiny(tmp_path / "tiny.safetensors", 2, features=4)
    scaling.main([*arguments, "--data", str(photos), "--model", str(model), "--scale", "2"])
    found = json.loads(capsys.readouterr().out)
    pictures = 1 if "--megapixels" in arguments else 4
    assert sum(found["many"]["done"]) == found["one"]["done"][0] == pictures
    assert found["ratio"] > 0
    assert ("overhead" in found) == ("ray" in arguments)
