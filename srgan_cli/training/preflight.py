"""Checks that are made first: before importing torch, creating a folder, reading a picture or downloading weights."""

from __future__ import annotations

from pathlib import Path

from srgan_cli.dataset.folders import files_of, files_under, folder_of, is_same_folder
from srgan_cli.dataset.wear_header import check_wear
from srgan_cli.errors import SettingsError, WeightsError, shown
from srgan_cli.files import expanded
from srgan_cli.networks.registry import entry_of, read_weights_header, resolve
from srgan_cli.training import folder
from srgan_cli.training_adaptation_config import MIN_WORN
from srgan_cli.training_config import TrainConfig
from srgan_cli.wording import counted


def check(config: TrainConfig, where: Path) -> None:
    """Raise `NothingToDoError`, `SettingsError` or `WeightsError` if a run in the folder `where` could not begin.

    The settings have already checked their own values; this checks what they refer to: the pictures' folders and the
    names in them, the run folder, the files of weights.
    """
    files_of(config.data, config.generator.scale)
    files_under(config.teacher.unlabelled_dirs)
    _check_wear(config)
    if not folder.refuse(where, config):  # a run that resumes no longer needs its initial weights
        _check_init(config)
    _check_vgg_file(config)
    _check_teacher(config)


def _check_wear(config: TrainConfig) -> None:
    """Check for worn pictures to learn from, or for the results of an earlier run."""
    if config.preset == "adapt" and not config.adaptation.on:
        raise SettingsError("the preset adapt needs --unpaired-lr-dir: a folder of worn pictures to learn from")
    worn, _ = files_under(config.adaptation.worn_dirs)
    if config.adaptation.on and len(worn) < MIN_WORN:
        raise SettingsError(
            f"the folder of --unpaired-lr-dir holds {counted(len(worn), 'picture')}, and at least {MIN_WORN} are "
            "needed, or what they show cannot be distinguished from their wear"
        )
    sharp = [folder_of(name) for name in config.data.high_dirs]
    worn_dirs = config.adaptation.worn_dirs
    twice = next((one for one in worn_dirs if any(is_same_folder(folder_of(one), other) for other in sharp)), None)
    if twice is not None:
        raise SettingsError(
            f"{shown(twice)} is given both as --hr-dir and as --unpaired-lr-dir; give a folder of sharp pictures and "
            "another one of worn pictures"
        )
    if config.degradation.wear is not None:
        facts = check_wear(config.degradation.wear, config.generator.scale)
        if facts.grey and not config.data.grey:
            raise SettingsError(
                f"the wear of {shown(config.degradation.wear)} was learned from pictures without colours, and how it "
                "would change colours is not known; add --set data.grey=true, which trains for grey pictures, or learn "
                "the wear from coloured ones"
            )


def _check_init(config: TrainConfig) -> None:
    if config.init is None:
        return
    scale = _scale_of(config.init, None if config.generator.grow else config.generator.scale)
    if scale is not None and not config.generator.grow:
        check_scale(config, scale)


def check_scale(config: TrainConfig, scale: int) -> None:
    """Check that the network of `init`, with scale `scale`, suits the run's."""
    if scale != config.generator.scale:
        raise SettingsError(
            f"{config.init} enlarges {scale} times, not {config.generator.scale}; give --scale {scale} to train it "
            "further, or --set generator.grow=true for another scale"
        )


def _check_teacher(config: TrainConfig) -> None:
    if config.teacher.model is not None:
        scale = _scale_of(config.teacher.model, config.generator.scale)
        if scale is not None:
            check_teacher_scale(config, scale)


def check_teacher_scale(config: TrainConfig, scale: int) -> None:
    """Check that the results of a teacher with scale `scale` can be downscaled to its student's."""
    if scale % config.generator.scale:
        raise SettingsError(
            f"the teacher, {config.teacher.model}, enlarges {scale} times, and its student {config.generator.scale} "
            "times: a teacher must enlarge as much as its student, or a multiple of that; give --scale "
            f"{scale} or another teacher"
        )


def _scale_of(source: str, wanted: float | None) -> int | None:
    """A model's scale, if its file contains it: other programs' files do not. Raises `WeightsError`."""
    path, entry = resolve(source, wanted)
    if entry is None and path.suffix.lower() == ".safetensors":
        entry = entry_of(read_weights_header(path), path, sha256="")
    return None if entry is None else entry.scale


def _check_vgg_file(config: TrainConfig) -> None:
    chosen = config.perceptual
    needed = "adversarial" in config.phases and config.adversarial.perceptual_weight and chosen.source == "vgg19"
    if not needed or chosen.weights_file is None:
        return
    path = expanded(chosen.weights_file)
    if not path.is_file():
        reason = "it is not a file" if path.exists() else "there is no such file"
        raise WeightsError(f"VGG19's weights, {path}, cannot be read: {reason}")
