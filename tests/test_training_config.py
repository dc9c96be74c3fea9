"""Settings of a training run: TOML and back, precedence, and every invalid value as one sentence."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgan_cli.errors import SettingsError
from srgan_cli.training_config import TrainConfig
from srgan_cli.training_presets import (
    PRESETS,
    from_mapping,
    merged,
    parse_duration,
    parse_value,
    preset,
    read_toml,
    to_toml,
)
from tests.texts import texts


def round_trip(config: TrainConfig, folder: Path) -> TrainConfig:
    path = folder / "config.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    return from_mapping(read_toml(path))


# ---------------------------------------------------------------------------------------------------------------- TOML


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_toml(name: str, tmp_path: Path) -> None:
    config = preset(name)
    assert config.preset == name
    assert round_trip(config, tmp_path) == config


def test_awkward_values_survive_toml(tmp_path: Path) -> None:
    config = from_mapping(
        {
            "budget_s": 1800,
            "init": 'a "quoted" \\ name\twith a tab',
            "data": {"high_dirs": ["bilder/größe 1", "写真", "C:\\photos"], "val_dir": "# no comment"},
            "perceptual": {"layers": {"conv1_2": 0.1, "conv5_4": 1}},
            "fidelity": {"learning_rate": 1e-7, "weight_decay": 1e-05},
        }
    )
    again = round_trip(config, tmp_path)
    assert again == config
    assert again.budget_s == 1800.0
    assert again.data.high_dirs == ("bilder/größe 1", "写真", "C:\\photos")
    assert isinstance(again.perceptual.layers["conv5_4"], float)


@given(texts(), st.floats(1e-12, 1.0))
def test_any_text_and_number_survive_toml(text: str, rate: float) -> None:
    plain: dict[str, Any] = {"data": {"high_dirs": [text]}, "fidelity": {"learning_rate": rate}}
    config = from_mapping(plain)
    lines = [line for line in to_toml(config).split("\n") if line.startswith(("high_dirs", "learning_rate"))]
    assert parse_value(lines[0].partition("=")[2]) == [text]
    assert parse_value(lines[1].partition("=")[2]) == rate


def test_nothing_is_left_out_but_what_is_none() -> None:
    lines = to_toml(TrainConfig()).splitlines()
    written = {line.partition(" =")[0] for line in lines if " =" in line}
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    sections = [
        getattr(TrainConfig(), name) for name in names if dataclasses.is_dataclass(getattr(TrainConfig(), name))
    ]
    wanted = {
        f.name for section in sections for f in dataclasses.fields(section) if getattr(section, f.name) is not None
    }
    assert wanted <= written


@pytest.mark.parametrize("content", [b"steps = ", b"\xff\xfe", b"a = 1\na = 2"])
def test_a_file_that_is_no_toml(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"bad\.toml cannot be read as TOML"):
        read_toml(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no\.toml"):
        read_toml(tmp_path / "no.toml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1e-4", 1e-4),
        (" true ", True),
        ("[1, 2.5]", [1, 2.5]),
        ("{ conv3_4 = 1.0 }", {"conv3_4": 1.0}),
        ('"30"', "30"),
        ("hinge", "hinge"),
        ("photos/my cat", "photos/my cat"),
        ("", ""),
    ],
)
def test_a_value_on_the_command_line(text: str, value: object) -> None:
    assert parse_value(text) == value


# ---------------------------------------------------------------------------------------------------------- precedence


def test_changes_go_before_the_preset_and_leave_the_rest() -> None:
    config = preset("paper", {"fidelity": {"batch": 4}})
    assert config.fidelity.batch == 4
    assert config.fidelity.loss == "mse"
    assert config.generator.architecture == "srresnet"


def test_merging_goes_into_sections_but_replaces_layers_whole() -> None:
    base = {"steps": 1, "fidelity": {"batch": 1, "crop_px": 8}, "perceptual": {"layers": {"conv1_1": 1.0}}}
    result = merged(base, {"fidelity": {"batch": 2}, "perceptual": {"layers": {"conv5_4": 1.0}}})
    assert result["fidelity"] == {"batch": 2, "crop_px": 8}
    assert result["perceptual"] == {"layers": {"conv5_4": 1.0}}
    assert base["fidelity"] == {"batch": 1, "crop_px": 8}


def test_the_paper_preset_is_the_papers() -> None:
    paper = preset("paper")
    assert paper.steps * paper.fidelity_fraction == pytest.approx(10**6)
    assert (paper.fidelity.batch, paper.fidelity.crop_px, paper.fidelity.learning_rate) == (16, 96, 1e-4)
    assert paper.adversarial.adversarial_weight == 1e-3
    assert dict(paper.perceptual.layers) == {"conv5_4": 1.0}
    assert paper.discriminator.kind == "vgg"


def test_phases_and_their_settings() -> None:
    config = TrainConfig()
    assert config.phases == ("fidelity", "adversarial")
    assert dataclasses.replace(config, phase="adversarial").phases == ("adversarial",)
    assert config.of("fidelity") is config.fidelity
    assert config.of("adversarial") is config.adversarial


# ---------------------------------------------------------------------------------------------------------- bad values

BAD: list[tuple[dict[str, Any], str]] = [
    ({"steps": 0}, "steps"),
    ({"steps": 1.5}, "steps must be a whole number"),
    ({"steps": True}, "steps must be a whole number"),
    ({"budget_s": 0}, "budget"),
    ({"budget_s": math.nan}, "budget"),
    ({"budget_s": math.inf}, "budget"),
    ({"phase": "third"}, "phase must be both, fidelity or adversarial"),
    ({"fidelity_fraction": 0}, "fidelity_fraction"),
    ({"fidelity_fraction": 1}, "fidelity_fraction"),
    ({"seed": -1}, "seed"),
    ({"seed": "x"}, "seed must be a whole number"),
    ({"init": 3}, "init must be text"),
    ({"generator": 3}, "generator is a section"),
    ({"generator": {"architecture": "unet"}}, "generator.architecture must be one of compact, srvgg, srresnet"),
    ({"generator": {"scale": 1}}, "generator.scale must be between 2 and 8"),
    ({"generator": {"scale": 4.0}}, "generator.scale must be a whole number"),
    ({"generator": {"architecture": "srresnet", "scale": 5}}, "srresnet enlarges 2, 3, 4 or 8 times"),
    ({"generator": {"batch_norm": True}}, "batch_norm is for srresnet"),
    ({"generator": {"scale": 3}}, "a crop of 128 px is not a multiple of the scale, 3"),
    ({"data": {"high_dirs": "photos"}}, "data.high_dirs must be a list"),
    ({"data": {"high_dirs": [3]}}, "data.high_dirs must be text"),
    ({"data": {"levels": []}}, "data.levels"),
    ({"data": {"levels": [2.0]}}, "data.levels"),
    ({"data": {"levels": [math.nan]}}, "data.levels"),
    ({"data": {"val_fraction": 0.9}}, "data.val_fraction must be between 0 and 0.5"),
    ({"data": {"val_max": 0}}, "data.val_max"),
    ({"data": {"val_low_dir": "x"}}, "data.val_low_dir needs data.val_dir"),
    ({"data": {"augment": 1}}, "data.augment must be true or false"),
    ({"degradation": {"kind": "jpeg"}}, "degradation.kind must be one of learned, bicubic, photo"),
    ({"degradation": {"strength": -1}}, "degradation.strength"),
    ({"degradation": {"blur_px": [3, 1]}}, "degradation.blur_px must be two rising numbers"),
    ({"degradation": {"blur_px": [1]}}, "degradation.blur_px must be two rising numbers"),
    ({"degradation": {"noise": [0, math.nan]}}, "degradation.noise"),
    ({"degradation": {"jpeg_quality": [0, 101]}}, "degradation.jpeg_quality"),
    ({"degradation": {"clean_fraction": 1.1}}, "degradation.clean_fraction"),
    ({"fidelity": {"loss": "l2"}}, "fidelity.loss must be one of l1, mse"),
    ({"fidelity": {"learning_rate": math.nan}}, "fidelity.learning_rate"),
    ({"fidelity": {"learning_rate": "fast"}}, "fidelity.learning_rate must be a number"),
    ({"fidelity": {"learning_rate": True}}, "fidelity.learning_rate must be a number"),
    ({"fidelity": {"schedule": "linear"}}, "fidelity.schedule"),
    ({"fidelity": {"batch": 0}}, "fidelity.batch"),
    ({"fidelity": {"ema": 1.0}}, "fidelity.ema"),
    ({"fidelity": {"small_crop_px": 30}}, "a crop of 30 px is not a multiple"),
    ({"adversarial": {"objective": "wgan"}}, "adversarial.objective must be one of"),
    ({"adversarial": {"pixel_weight": -0.1}}, "adversarial.pixel_weight"),
    ({"adversarial": {"ramp_fraction": 2}}, "adversarial.ramp_fraction"),
    ({"adversarial": {"r1_every_steps": 0}}, "adversarial.r1_every_steps"),
    ({"adversarial": {"crop_px": 4}}, "adversarial.crop_px"),
    ({"perceptual": {"layers": {}}}, "at least one layer"),
    ({"perceptual": {"layers": {"conv2_3": 1.0}}}, "VGG19 has no layer 'conv2_3'"),
    ({"perceptual": {"layers": {"relu1_1": 1.0}}}, "VGG19 has no layer"),
    ({"perceptual": {"layers": {"conv1_1": -1.0}}}, "the weight of conv1_1 must be 0 or more, not -1"),
    ({"perceptual": {"layers": [1]}}, "perceptual.layers must be a table"),
    ({"perceptual": {"source": "resnet"}}, "perceptual.source"),
    ({"discriminator": {"kind": "none"}}, "discriminator.kind"),
    ({"discriminator": {"channels": -1}}, "discriminator.channels"),
    ({"compute": {"device": "gpu"}}, "compute.device must be auto, cpu, cuda"),
    ({"compute": {"precision": "int8"}}, "compute.precision"),
    ({"compute": {"threads": -1}}, "compute.threads"),
    ({"watch": {"log_every_steps": 0}}, "watch.log_every_steps"),
    ({"watch": {"validate_every_s": 0}}, "watch.validate_every_s"),
    ({"watch": {"samples": 65}}, "watch.samples"),
]


@pytest.mark.parametrize(("values", "words"), BAD, ids=[str(values) for values, _ in BAD])
def test_a_bad_value_is_a_sentence(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(words)) as caught:
        from_mapping(values)
    assert caught.value.exit_code == 2


def test_every_number_has_bounds() -> None:
    """A setting without a check would take NaN; this finds one that somebody forgets."""
    config = TrainConfig()
    for section in dataclasses.fields(config):
        values = getattr(config, section.name)
        for field in dataclasses.fields(values) if dataclasses.is_dataclass(values) else ():
            if isinstance(getattr(values, field.name), float):
                with pytest.raises(SettingsError, match=field.name):
                    from_mapping({section.name: {field.name: math.nan}})


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"fidelity": {"lerning_rate": 1}}, "fidelity.lerning_rate (did you mean fidelity.learning_rate?)"),
        ({"generater": {}}, "generater (did you mean generator?)"),
        ({"fidelity": {"wings": 2}}, "fidelity.wings; `srgan train --print-config` shows all"),
    ],
)
def test_a_setting_that_there_is_not(values: dict[str, Any], hint: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(hint)):
        from_mapping(values)


def test_an_unknown_preset() -> None:
    with pytest.raises(SettingsError, match="'best'; choose from srgan, compact, photo, adapt, paper"):
        preset("best")


def test_an_empty_text_is_none_where_there_may_be_none() -> None:
    assert from_mapping({"init": "", "data": {"val_dir": ""}}) == TrainConfig()


# ------------------------------------------------------------------------------------------------------------ durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("30 min", 1800), ("1h30m", 5400), ("2.5h", 9000), ("1D", 86400), ("1h 5m 3s", 3903)],
)
def test_a_length_of_time(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["30", "", "m", "1h30", "-5m", "5 parsecs", "1e3s"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(SettingsError, match="not a length of time"):
        parse_duration(text)
