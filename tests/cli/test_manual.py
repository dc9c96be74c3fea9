"""Manual pages: one for each command, with every option; and how `srgan doctor` reports the user's defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from srgan_cli.cli import main
from srgan_cli.cli.manual import pages
from tests.faults import save_tiny


def test_a_page_for_each_command_with_its_options() -> None:
    made = pages()
    assert {"srgan.1", "srgan-upscale.1", "srgan-models-list.1"} <= made.keys()
    page = made["srgan-upscale.1"]
    assert page.startswith('.TH "SRGAN-UPSCALE"')
    for option in (r"\-\-only\-enlarge", r"\-\-print PAPER", ".SS Many pictures", ".B 130"):
        assert option in page
    for text in made.values():
        assert all(line.isprintable() for line in text.splitlines())


def test_doctor_shows_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny(tmp_path / "tiny.safetensors", 4, features=4)
    config = tmp_path / "config.toml"
    config.write_text("[upscale]\nquality = 80\n")
    monkeypatch.setenv("SRGAN_CONFIG", str(config))
    monkeypatch.setenv("SRGAN_DEVICE", "cpu")
    assert main(["doctor", "-m", str(model)]) == 0
    out = capsys.readouterr().out
    assert f"upscale: quality = 80 (from {config})" in out
    assert "upscale: device = cpu (from SRGAN_DEVICE)" in out
    assert "evaluate: device = cpu (from SRGAN_DEVICE)" in out
