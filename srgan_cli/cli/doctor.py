"""`srgan doctor`: what was found, what will be used, and why."""

from __future__ import annotations

import json
import os
import platform
import sys

import click

from srgan_cli import __version__
from srgan_cli.cli import defaults
from srgan_cli.cli.command import Command
from srgan_cli.cli.options import (
    device_option,
    json_option,
    model_option,
    no_config_option,
    precision_option,
    tile_option,
)
from srgan_cli.config import AUTO_MODEL, DEFAULT_MODEL, EngineOptions, Precision
from srgan_cli.errors import shown
from srgan_cli.extras import how_to_install
from srgan_cli.wording import counted


@click.command(cls=Command)
@model_option()
@device_option()
@precision_option()
@tile_option()
@json_option("Print one JSON object.")
@no_config_option()
def doctor(model: str, device: str, precision: Precision, tile_px: int | None, as_json: bool) -> int:
    """Report what this machine has, what srgan will use, and why.

    --model, --device, --precision and --tile are those of `srgan upscale`; the report shows their effect.
    """
    findings = {
        **_machine(),
        **_defaults(),
        **_pictures(),
        **_extras(),
        **_choice(model, EngineOptions(device, precision, tile_px)),
    }
    if as_json:
        click.echo(json.dumps(findings, indent=2))
        return 0
    width = max(map(len, findings))
    for name, value in findings.items():
        lines = value if isinstance(value, list) else [str(value)]
        for i, line in enumerate(lines):
            click.echo(f"{name if i == 0 else '':<{width}}  {line}")
    return 0


def _machine() -> dict[str, object]:
    import torch

    from srgan_cli.engine.backends import choice
    from srgan_cli.engine.backends.memory import keep_large_blocks

    kept = keep_large_blocks()
    return {
        "srgan": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        "torch": torch.__version__,
        "devices": [*map(str, choice.devices()), *choice.absences()],
        "cpu": counted(os.cpu_count() or 1, "core"),
        "allocator": "glibc keeps large blocks" if kept else "unchanged (not glibc, or SRGAN_KEEP_BLOCKS=0)",
    }


def _defaults() -> dict[str, object]:
    """Defaults from a config file and the environment, with their sources."""
    from srgan_cli.cli import cli

    context = click.Context(cli)
    lines = []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if isinstance(command, Command):
            for key, (value, origin) in defaults.found(name, command.settable()).items():
                lines.append(f"{name}: {key} = {value} (from {origin})")
    path = defaults.config_file()
    is_there = path is not None and os.path.exists(path)  # noqa: PTH110 - as `defaults` looks
    where = "off" if path is None else f"{shown(path)}{'' if is_there else ' (does not exist)'}"
    return {"config file": where, "defaults": lines or "none"}


def _pictures() -> dict[str, object]:
    import PIL
    import pyvips

    from srgan_cli.imaging.formats import FORMATS

    version = ".".join(str(pyvips.version(i)) for i in range(3))
    return {
        "libvips": f"{version}, Pillow {PIL.__version__}",
        "reads": ", ".join(f.title for f in FORMATS.values()),
        "writes": ", ".join(f.title for f in FORMATS.values() if f.writable),
    }


def _extras() -> dict[str, object]:
    from importlib.util import find_spec

    return {
        "other models": "spandrel is installed" if find_spec("spandrel") else how_to_install("spandrel"),
        "HEIC": "pillow-heif is installed" if find_spec("pillow_heif") else how_to_install("heic"),
    }


def _choice(model: str, options: EngineOptions) -> dict[str, object]:
    from srgan_cli.engine.upscaler import Upscaler
    from srgan_cli.networks import registry
    from srgan_cli.networks.weights import load_model

    damaged = [f"{check.entry.name} {check.reason}" for check in registry.verify() if not check.ok]
    loaded = load_model(DEFAULT_MODEL if model == AUTO_MODEL else model)
    upscaler = Upscaler(loaded, options)
    tile = "asked for" if options.tile_px else "as the free memory allows, up to the fastest size"
    halo = f"a halo of {upscaler.chain.halo_px} px" if not upscaler.chain.blend_px else "blended overlaps"
    return {
        "weights": damaged or "all bundled files are intact",
        "model": f"{loaded.name}: {loaded.architecture}, x{loaded.scale}, {loaded.path}",
        "will use": [
            *upscaler.compute.reasons,
            f"tile {upscaler.tile_px} px: {tile}; {halo}",
            f"colour lock {'on' if upscaler.chain.color_lock else 'off'}",
        ],
    }
