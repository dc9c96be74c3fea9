"""A teacher's settings: their checks, their text, and what they imply."""

from __future__ import annotations

from pathlib import Path

import pytest

from srgan_cli.errors import SettingsError
from srgan_cli.training_data_config import TeacherSettings
from srgan_cli.training_presets import from_mapping, preset, read_toml, to_toml


def test_settings_are_checked() -> None:
    for wrong, message in (
        ({"weight": 1.5}, r"teacher\.weight must be between 0 and 1"),
        ({"real": "fake"}, r"teacher\.real must be one of original, teacher, both"),
        ({"results": "later"}, r"teacher\.results must be one of auto, kept, inline"),
        ({"crops": -1}, r"teacher\.crops must be between"),
        ({"piece_px": 3}, r"teacher\.piece_px must be between 8 and 1024, or 0"),
        ({"unlabelled_dirs": ["a"]}, "only be learned from with a teacher: name one with --teacher"),
        ({"budget_fraction": 1.0}, r"teacher\.budget_fraction"),
    ):
        with pytest.raises(SettingsError, match=message):
            from_mapping({"teacher": wrong})
    for phase in ("both", "fidelity", "adversarial"):
        with pytest.raises(SettingsError, match=r"piece_px, 40, is too small .* they need 56 px"):
            from_mapping({"phase": phase, "teacher": {"model": "x", "piece_px": 40}})
    from_mapping({"teacher": {"piece_px": 40}})  # there is no teacher


def test_a_piece_is_larger_than_a_crop() -> None:
    assert TeacherSettings().piece_side_px(32) == 96
    assert TeacherSettings().piece_side_px(96) == 128
    assert TeacherSettings(piece_px=70).piece_side_px(32) == 70


def test_settings_survive_toml(tmp_path: Path) -> None:
    settings = preset("photo", {"teacher": {"model": "a/b.pth", "weight": 0.5, "unlabelled_dirs": ["x", "y"]}})
    (tmp_path / "c.toml").write_text(to_toml(settings))
    assert from_mapping(read_toml(tmp_path / "c.toml")) == settings


def test_a_taught_photo_model_sees_what_real_esrgan_saw() -> None:
    with_teacher = preset("photo", {"teacher": {"model": "x"}}).degradation
    alone = preset("photo").degradation
    assert (alone.blur_px, alone.noise, alone.resize) == ((0.2, 2.0), (1.0, 20.0), (0.3, 1.3))
    assert (with_teacher.blur_px, with_teacher.noise, with_teacher.resize) == ((0.2, 3.0), (1.0, 30.0), (0.15, 1.5))
    assert alone.final_ringing_fraction == 0 < with_teacher.final_ringing_fraction
    assert preset("srgan", {"teacher": {"model": "x"}, "degradation": {"kind": "photo"}}).degradation == with_teacher
    assert preset("srgan", {"teacher": {"model": "x"}}).degradation == preset("srgan").degradation
    chosen = preset("photo", {"teacher": {"model": "x"}, "degradation": {"noise": [1.0, 5.0]}}).degradation
    assert chosen.noise == (1.0, 5.0)
