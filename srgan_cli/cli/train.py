"""`srgan train`: trains a model on a folder of pictures."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from srgan_cli import training_presets as settings
from srgan_cli.cli.command import Command, under
from srgan_cli.cli.options import (
    ModelName,
    degradation_option,
    device_option,
    high_dir_option,
    json_option,
    low_dir_option,
    names,
    no_config_option,
    path,
    precision_option,
    quiet_option,
    scale_option,
    vgg_weights_option,
)
from srgan_cli.errors import SettingsError, shown
from srgan_cli.files import expanded
from srgan_cli.training_config import Objective, Phases, TrainConfig
from srgan_cli.training_data_config import degradation_called
from srgan_cli.training_presets import PRESETS

if TYPE_CHECKING:
    from srgan_cli.training.observer import Outcome

_DIRS: dict[str, Any] = {"multiple": True, "metavar": "DIR...", "callback": names}
_SEVERAL = (
    *("--hr-dir", "--high-dir", "--lr-dir", "--low-dir", "--unlabelled-dir", "--unpaired-lr-dir", "--unpaired-low-dir"),
    "--set",
)


class _Command(Command):
    """Lets an option take several values, as in `--hr-dir photos/*/`; click's options take a fixed number each."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        separate: list[str] = []
        option: str | None = None
        for arg in args:
            if arg.startswith("-"):
                option = arg if arg in _SEVERAL else None
            elif option is not None and separate[-1] != option:
                separate.append(option)
            separate.append(arg)
        return super().parse_args(ctx, separate)


def _budget(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    return None if value is None else settings.parse_duration(value)


_EPILOG = "\b\nPresets:\n" + "\n".join(f"  {name:<9}{about}" for name, (about, _) in PRESETS.items())


_pictures, _run_options, _length, _network, _compute = map(
    under, ("Pictures", "Run", "Length and start", "Model and losses", "Compute")
)


@click.command(cls=_Command, no_args_is_help=True, epilog=_EPILOG)
@high_dir_option("high_dirs", "Pictures", "Folders of sharp pictures to learn from, including subfolders.", **_DIRS)
@low_dir_option(
    "low_dirs", "Pictures", "Their small counterparts, with the same names. [default: made from them by --degradation]",
    **_DIRS,
)  # fmt: skip
@_pictures(
    "--val-dir", callback=names, metavar="DIR", help="Pictures to validate with. [default: a few of --hr-dir, held out]"
)
@_pictures(
    "--val-lr-dir", "--val-low-dir", "val_low_dir", callback=names, metavar="DIR", help="Their small counterparts."
)
@_run_options(
    "--out", type=click.Path(), callback=path, metavar="DIR", help="Run folder. [default: runs/NAME of --hr-dir]"
)
@_run_options(
    "--preset",
    type=click.Choice(list(PRESETS), case_sensitive=False),
    help="Preset that all settings start from. [default: srgan]",
)
@_run_options(
    "--config",
    "config_file",
    type=click.Path(),
    callback=path,
    metavar="FILE.toml",
    help="Settings that override the preset's.",
)
@_length(
    "--phase", type=click.Choice(get_args(Phases), case_sensitive=False), help="What to train. [default: the preset's]"
)
@_length("--budget", "budget_s", callback=_budget, metavar="TIME", help="Train for this long: 30m, 2h, 1h30m.")
@_length("--steps", type=int, metavar="N", help="Train for N steps instead.")
@_length("--init", type=ModelName(), metavar="NAME|FILE|RUN", help="Start from a model's weights and size.")
@_length("--grow", is_flag=True, help="With --init: start a deeper network, or one for another scale, from it.")
@_length(
    "--teacher",
    type=ModelName(),
    metavar="NAME|FILE|RUN",
    help="A stronger model to learn from: yours, bundled or another program's.",
)
@_pictures(
    "--unlabelled-dir",
    "unlabelled_dirs",
    multiple=True,
    callback=names,
    metavar="DIR...",
    help="With --teacher: pictures like those you will enlarge, without originals.",
)
@_pictures(
    "--unpaired-lr-dir",
    "--unpaired-low-dir",
    "worn_dirs",
    multiple=True,
    callback=names,
    metavar="DIR...",
    help="With --preset adapt: worn pictures without originals, whose wear is learned.",
)
@scale_option("Enlarge N times. [default: 4]", heading="Model and losses")
@_pictures("--batch", type=int, metavar="N", help="Crops per step.")
@_pictures("--crop", "crop_px", type=int, metavar="PX", help="Side of a crop of the sharp picture.")
@degradation_option(
    "How small pictures are made from the sharp ones; RUN: by the wear that an adapted run has learned."
)
@vgg_weights_option("Model and losses", "downloaded once")
@_network(
    "--perceptual",
    type=click.Choice(["vgg19", "random"], case_sensitive=False),
    help="Features for the perceptual loss; random needs no weights.",
)
@_network("--objective", type=click.Choice(get_args(Objective), case_sensitive=False), help="The adversarial loss.")
@_network(
    "--discriminator",
    type=click.Choice(["vgg", "patch", "unet"], case_sensitive=False),
    help="vgg is the paper's, patch is fast, unet judges each pixel.",
)
@_run_options("--seed", type=int, metavar="N", help="Seed of every random choice. [default: 0]")
@device_option(default=None)
@precision_option(default=None)
@_compute("--threads", type=int, metavar="N", help="CPU threads. [default: PyTorch's choice]")
@_run_options(
    "--set",
    "assignments",
    multiple=True,
    metavar="SECTION.NAME=VALUE...",
    help="Change any setting that --print-config shows.",
)
@_run_options("--print-config", is_flag=True, help="Print all settings as TOML, and do nothing else.")
@_pictures(
    "--preview",
    type=click.Path(),
    callback=path,
    metavar="FILE.png",
    help="Only draw a sheet of crops as training would see them.",
)
@quiet_option()
@json_option("Events on stdout, one JSON object per line.")
@no_config_option()
def train(
    high_dirs: tuple[str, ...], low_dirs: tuple[str, ...], val_dir: str | None, val_low_dir: str | None,
    out: Path | None, preset: str | None, config_file: Path | None, phase: str | None, budget_s: float | None,
    steps: int | None, init: str | None, grow: bool, teacher: str | None,
    unlabelled_dirs: tuple[str, ...], worn_dirs: tuple[str, ...], scale: int | None, batch: int | None,
    crop_px: int | None, degradation: str | None, vgg_weights: Path | None, perceptual: str | None,
    objective: str | None, discriminator: str | None, seed: int | None, device: str | None,
    precision: str | None, threads: int | None, assignments: tuple[str, ...], print_config: bool,
    preview: Path | None, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Train a model on your own pictures.

    The run folder holds the model (`srgan upscale --model RUN`), a report and everything needed to resume: the same
    command resumes a run that was stopped. Settings come from the preset; the --config file overrides it, the options
    override both, and --set overrides everything.

    \b
      srgan train --hr-dir photos/ --preset compact --budget 30m
      srgan train --hr-dir photos/ --preset photo --preview sheet.png
      srgan train --hr-dir sharp/ --unpaired-lr-dir mine/ --preset adapt --budget 30m
      srgan train --hr-dir photos/ --teacher x4plus.safetensors --preset photo
      srgan train --preset paper --print-config > paper.toml
      torchrun --nproc-per-node 4 -m srgan_cli train --hr-dir photos/
    """
    if budget_s is not None and steps is not None:
        raise SettingsError("give only one of --budget and --steps")
    phases = _given(batch=batch, crop_px=crop_px)
    options = _given(
        phase=phase, budget_s=budget_s, steps=steps, init=init, seed=seed,
        generator=_given(scale=scale, grow=grow or None),
        data=_given(high_dirs=list(high_dirs), low_dirs=list(low_dirs), val_dir=val_dir, val_low_dir=val_low_dir),
        degradation={} if degradation is None else degradation_called(degradation),
        fidelity=phases,
        adversarial={**phases, **_given(objective=objective)},
        perceptual=_given(source=perceptual, weights_file=vgg_weights and str(vgg_weights)),
        discriminator=_given(kind=discriminator),
        teacher=_given(model=teacher, unlabelled_dirs=list(unlabelled_dirs)),
        adaptation=_given(worn_dirs=list(worn_dirs)),
        compute=_given(device=device, precision=precision, threads=threads),
    )  # fmt: skip
    config = resolve(preset, config_file, options, assignments)
    if print_config:
        click.echo(settings.to_toml(config), nl=False)
        return 0
    if not config.data.high_dirs:
        raise SettingsError("give --hr-dir: a folder of sharp pictures to learn from")
    if preview is not None:
        return _preview(config, out or default_folder(config), preview, quiet=quiet)
    return _run(config, out or default_folder(config), quiet=quiet, as_json=as_json)


# ------------------------------------------------------------------------------------------------------------- settings


def resolve(
    preset: str | None, config_file: Path | None, options: Mapping[str, Any], assignments: Sequence[str]
) -> TrainConfig:
    """All settings of a run. Later ones override earlier ones: preset, file, options, assignments. Raises
    `SettingsError`."""
    written = {} if config_file is None else settings.read_toml(config_file)
    name = preset or str(written.get("preset", TrainConfig.preset))
    changes = settings.merged(written, options)
    for assignment in assignments:
        assigned = parse_assignment(assignment)
        for option, other in (("steps", "budget_s"), ("budget_s", "steps")):
            if option in options and other in assigned:
                flag = "--steps" if option == "steps" else "--budget"
                raise SettingsError(f"give only one of {flag} and --set {other}: a run has one length")
        changes = settings.merged(changes, assigned)
    if "steps" in options and "budget_s" not in options:
        changes.pop("budget_s", None)  # the file's, which would take precedence over the requested steps
    scale = options.get("generator", {}).get("scale")
    if scale is not None:
        changes = settings.merged(_crops_for(scale, name, changes), changes)
    config = settings.preset(name, {**changes, "preset": name})
    # A file or --set may still request it.
    if options.get("phase") == config.phase == "adversarial" and config.init is None:
        raise SettingsError(
            "the adversarial phase starts from a network that was trained for fidelity: name it with --init "
            "(a run folder, a file or a bundled model), or train one first with --phase both"
        )
    _check_sizes(config, assignments)
    return _writable(config)


def _check_sizes(config: TrainConfig, assignments: Sequence[str]) -> None:
    """Refuse settings that would have no effect: sizes with --init, and growth without a model."""
    if config.generator.grow and config.init is None:
        raise SettingsError("--grow needs --init: the model that the larger network starts from")
    asked = [name for one in assignments for name in parse_assignment(one).get("generator", {})]
    # every compact network may have noise inputs
    sizes = [name for name in asked if name not in ("grow", "scale", "noise")]
    if config.init is not None and not config.generator.grow and sizes:
        raise SettingsError(
            f"with --init the sizes are those of {shown(config.init)}, not generator.{sizes[0]}; add --grow for a "
            "deeper network that starts from it"
        )


def parse_assignment(text: str) -> dict[str, Any]:
    """`adversarial.pixel_weight=0.2` -> `{"adversarial": {"pixel_weight": 0.2}}`.

    Values are TOML's: numbers, true, [lists], { tables = 1 }. Anything else is text, so that text needs no quotes.
    """
    path, equals, value = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise SettingsError(f"--set expects SECTION.NAME=VALUE, for example fidelity.batch=8, not {text!r}")
    if keys[:2] == ["perceptual", "layers"] and len(keys) > 2:  # the other layers would be dropped unnoticed
        raise SettingsError(
            f"perceptual.layers is set as a whole, with all layers that should count: --set 'perceptual.layers="
            f"{{{keys[2]}={value.strip()}, …}}'"
        )
    nested: Any = settings.parse_value(value)
    for key in reversed(keys):
        nested = {key: nested}
    return dict(nested)


def default_folder(config: TrainConfig) -> Path:
    """`runs/` and the name of the first folder of pictures."""
    return Path("runs") / (expanded(config.data.high_dirs[0]).resolve().name or "pictures")


def _given(**values: Any) -> dict[str, Any]:
    """The options that were given. Others leave the preset's values unchanged."""
    return {name: value for name, value in values.items() if value not in (None, [], {})}


def _crops_for(scale: int, preset: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Crop sizes that are multiples of what --scale requires, for phases without a requested size: the preset's,
    slightly reduced."""
    crops = {}
    for phase in ("fidelity", "adversarial", "adaptation"):
        usual = getattr(settings.preset(preset), phase).crop_px
        halved = 2 * scale if phase == "adaptation" else scale
        step = math.lcm(16, halved) if scale > 0 else usual  # discriminators halve a crop four times
        crops[phase] = {"crop_px": max(usual // step, 1) * step}
    return crops


def _writable(config: TrainConfig) -> TrainConfig:
    """The run stores its settings as TOML, which is UTF-8; names of folders need not be."""
    try:
        settings.to_toml(config).encode()
    except UnicodeEncodeError as err:
        raise SettingsError(f"the name of a folder or file is not UTF-8: {shown(err.object)}") from err
    return config


# ------------------------------------------------------------------------------------------------------------------ run


def _preview(config: TrainConfig, folder: Path, target: Path, *, quiet: bool) -> int:
    if config.adaptation.on:
        return _preview_wear(config, folder, target, quiet=quiet)
    from srgan_cli.runlog.preview import preview
    from srgan_cli.training.run import with_sizes_of_init

    preview(with_sizes_of_init(config), target)
    if not quiet:
        click.echo(f"{shown(target)}: crops as training would see them", err=True)
    return 0


def _preview_wear(config: TrainConfig, folder: Path, target: Path, *, quiet: bool) -> int:
    from srgan_cli.training.wear_preview import preview_wear

    learned = preview_wear(config, folder, target)
    if not quiet:
        what = f"what {shown(folder)} has learned of the wear" if learned else "sharp and worn pictures"
        click.echo(f"{shown(target)}: {what}", err=True)
    return 0


def _run(config: TrainConfig, folder: Path, *, quiet: bool, as_json: bool) -> int:
    try:
        str(folder).encode()
    except UnicodeEncodeError as err:
        raise SettingsError(f"the run folder's name is not UTF-8: {shown(folder)}; choose another with --out") from err
    from srgan_cli.cli.training_console import TrainingWatch
    from srgan_cli.training import preflight

    preflight.check(config, folder)  # report immediate errors immediately: importing torch takes seconds
    from srgan_cli.training import trainer

    # Under torchrun, the first process prints for all of them.
    first = os.environ.get("RANK", "0") == "0"
    with TrainingWatch(quiet=quiet or not first, as_json=as_json and first) as watch:
        outcome: Outcome = trainer.train(config, folder, watch)
    watch.finish(outcome)
    return outcome.exit_code
