"""`srgan export` through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from srgan_cli.cli import main
from tests.faults import save_tiny


def test_it_says_what_it_wrote_and_how_well_it_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny(tmp_path / "mine.safetensors", 2)
    assert main(["export", str(model), "-o", str(tmp_path / "mine-x2.param")]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(tmp_path / "mine-x2.param"), str(tmp_path / "mine-x2.bin")]
    assert "checked: the result of ncnn" in err
    assert main(["export", str(model), "-o", str(tmp_path / "m.onnx"), "--json", "--precision", "fp16"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == [str(tmp_path / "m.onnx")]
    assert 0 < told["difference"] < 1e-2


def test_refusals_have_their_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(save_tiny(tmp_path / "mine.safetensors", 2))
    assert main(["export", model, "-o", str(tmp_path / "m.txt")]) == 2
    assert main(["export", model, "-o", str(tmp_path / "m.pth")]) == 4
    assert main(["export", "nothing", "-o", str(tmp_path / "m.onnx")]) == 4
    assert main(["export", model, "-o", str(tmp_path / "m.onnx"), "--scale", "4"]) == 2
    assert main(["export", "fast", "-o", str(tmp_path / "m.onnx"), "--scale", "3"]) == 2
    assert not (tmp_path / "m.onnx").exists()
    (tmp_path / "m.onnx").touch()
    assert main(["export", model, "-o", str(tmp_path / "m.onnx")]) == 2
    err = capsys.readouterr().err
    assert "use --format onnx or ncnn" in err
    assert "exists already" in err
    assert "mine.safetensors: it enlarges 2 times" in err
    assert "--scale 3 does not suit fast: it enlarges 2 or 4 times" in err
