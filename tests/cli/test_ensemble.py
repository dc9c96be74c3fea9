"""`--ensemble` on the command line: other results, made again on --resume, recorded, refused with what it cannot do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.cli import main
from tests.faults import save_tiny
from tests.upscaling.pictures import picture

pytestmark = pytest.mark.usefixtures("here")


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    code = main([*map(str, arguments), "--device", "cpu", "--precision", "fp32"])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_upscale(here: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(here / "a.png", 30, 20)
    command = "upscale", "a.png", "-m", model, "-o", "b.png"
    assert run(capsys, *command)[0] == 0
    plain = np.asarray(Pillow.open("b.png"))
    assert run(capsys, *command, "--ensemble", "--resume", "-v")[2].count("the mean of eight results") == 1
    with Pillow.open("b.png") as result:
        result.load()
        assert not np.array_equal(np.asarray(result), plain), "made again, since the settings differ"
        assert "(ensemble)" in str(result.info)
    assert "1 skipped" in run(capsys, *command, "--ensemble", "--resume")[2]


def test_several_devices_average_too(here: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        picture(here / "in" / f"{name}.png", 30, 20, seed=ord(name))
    assert main(["upscale", "in", "-o", "one", "-m", str(model), "--ensemble", "--device", "cpu"]) == 0
    assert main(["upscale", "in", "-o", "two", "-m", str(model), "--ensemble", "--device", "cpu:2x1"]) == 0
    for name in ("a.png", "b.png"):
        one, two = (np.asarray(Pillow.open(Path(folder) / name)).astype(int) for folder in ("one", "two"))
        assert np.abs(one - two).max() <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--variation", "0.5"), "--ensemble averages the variants"),
        (("--variants", "2"), "--ensemble makes all variants the same"),
    ],
)
def test_noise_and_an_ensemble_exclude_each_other(
    here: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    noisy = save_tiny(here / "noisy.safetensors", 2, noise=True)
    picture(here / "a.png", 30, 20)
    code, _, err = run(capsys, "upscale", "a.png", "-m", noisy, "--ensemble", *options)
    assert (code, err.count("\n")) == (2, 1)
    assert words in err
    assert run(capsys, "upscale", "a.png", "-m", noisy, "--ensemble", "-o", "b.png", "--variation", "0")[0] == 0
    assert run(capsys, "upscale", "a.png", "-m", noisy, "--ensemble", "-o", "c.png")[0] == 0
    assert Path("b.png").stat().st_size
    assert np.array_equal(np.asarray(Pillow.open("b.png")), np.asarray(Pillow.open("c.png")))


@pytest.mark.parametrize("grain", [(), ("--grain", "0.5")])
def test_a_default_ensemble_stays_unless_noise_is_asked_for(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], grain: tuple[str, ...]
) -> None:
    noisy = save_tiny(here / "noisy.safetensors", 2, noise=True)
    picture(here / "a.png", 30, 20)
    monkeypatch.setenv("SRGAN_UPSCALE_ENSEMBLE", "true")
    for name, options in {
        "plain": (), "silent": ("--variation", "0"), "one": ("--variants", "1"), "half": ("--variation", ".5"),
        "two": ("--variants", "2"),
    }.items():  # fmt: skip
        assert run(capsys, "upscale", "a.png", "-m", noisy, "-o", f"{name}.png", *grain, *options)[0] == 0
    made = {path.stem: b"(ensemble)" in path.read_bytes() for path in Path().glob("*.png") if path.stem != "a"}
    expected = {"plain": True, "silent": True, "one": True, "half": False}
    assert made == expected | dict.fromkeys(("two-v1", "two-v2"), bool(grain))


def test_evaluate_shows_both(here: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(here / "in" / "a.png", 48, 64)
    code, out, err = run(
        capsys, "evaluate", "--hr-dir", "in", "-m", model, "--ensemble", "--metrics", "none", "--json", "--save", "made"
    )
    assert code == 0, err
    methods = json.loads(out)["methods"]
    name = next(name for name in methods if name.endswith(", ensemble"))
    assert name.removesuffix(", ensemble") in methods
    assert methods[name] != methods[name.removesuffix(", ensemble")]
    assert (here / "made" / name / "a.png").is_file()
