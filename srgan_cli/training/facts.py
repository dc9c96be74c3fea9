"""Facts about a run, for its log, its report and its model's card."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

from srgan_cli import __version__
from srgan_cli.dataset.scan import Scan
from srgan_cli.networks.registry import Card
from srgan_cli.training.clock import Clock
from srgan_cli.training.run import Run
from srgan_cli.training.state import State
from srgan_cli.training.teaching import Teacher
from srgan_cli.wording import counted

_PRECISIONS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_OUR_PATHS = ("high_dirs", "low_dirs", "val_dir", "val_low_dir", "cache_dir")
_MAX_NAME_LENGTH = 80


def facts(run: Run, state: State, scan: Scan) -> dict[str, object]:
    """What is trained, on which data and device."""
    config = run.config
    settings = config.of(state.phase)
    reasons = Counter(one.kind for one in scan.refused)
    return {
        "device": str(run.device),
        "precision": _PRECISIONS[run.autocast.dtype],
        "processes": run.group.world,
        "threads": torch.get_num_threads(),
        "architecture": run.generator.architecture,
        "parameters": _parameters(run.generator),
        "discriminator_parameters": _parameters(run.discriminator) if run.discriminator is not None else 0,
        "scale": run.generator.scale,
        "batch": settings.batch,
        "crop_px": settings.crop_px,
        "steps": None if config.budget_s else config.steps,
        "budget_s": config.budget_s,
        "teacher": teacher_card(run.teacher) if run.teacher is not None else None,
        "pieces": state.pieces or None,
        "pictures": len(scan.train),
        "pictures_without_an_original": len(scan.unlabelled) or None,
        "validation_pictures": len(scan.val),
        "left_out": len(scan.refused),
        "left_out_because": ", ".join(f"{count} {kind}" for kind, count in reasons.most_common()) or None,
        "split": scan.split,
        "srgan": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def card(where: Path, run: Run, state: State, clock: Clock, scan: Scan, latest: Mapping[str, float], *,
         adversarial: bool) -> Card:  # fmt: skip
    """The card of the model's file; `latest` are its scores. No paths, since models are passed on."""
    config = dataclasses.asdict(run.config)
    for key in _OUR_PATHS:
        del config["data"][key]
    del config["perceptual"]["weights_file"], config["init"], config["teacher"]["unlabelled_dirs"]
    del config["adaptation"]["worn_dirs"]
    config["degradation"]["wear"] = config["degradation"]["wear"] and "a wearer's file"
    config["teacher"]["model"] = None if run.teacher is None else teacher_card(run.teacher)
    name = _name(where)
    scores = {key: round(latest[key], 4) for key in ("psnr_y_db", "ssim_y") if math.isfinite(latest.get(key, math.nan))}
    return Card(
        name=name,
        family=name,
        description=f"trained on {counted(len(scan.train), 'picture')}, {counted(state.step, 'step')}",
        adversarial=adversarial,
        scores={"validation": scores},
        recipe={
            "pictures": len(scan.train),
            "steps": state.step,
            "seconds": round(clock.elapsed_s),
            "config": config,
        },
    )


def teacher_card(teacher: Teacher) -> dict[str, object]:
    """The teacher's name and hash, and its licence if its file contains it."""
    model = teacher.model
    return {
        "name": model.name,
        "architecture": model.architecture,
        "scale": model.scale,
        "parameters": _parameters(model.network) or None,  # unknown for a network that another library runs
        "sha256": model.sha256,
        "licence": (model.entry.licence if model.entry is not None else "") or "not stated in its file",
    }


def _name(where: Path) -> str:
    """The run folder's name, as far as it is a valid model name."""
    kept = "".join(c for c in where.resolve().name if c.isprintable() and c not in "/\\:")
    return kept.lstrip(".")[:_MAX_NAME_LENGTH] or "run"


def digest(scan: Scan) -> str:
    """Identifies a set of pictures without reading them again."""
    names = [f"{one.path.name} {one.width} {one.height}" for one in (*scan.train, *scan.val, *scan.unlabelled)]
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def command() -> str:
    """The command line, for the report."""
    return shlex.join(["srgan", *sys.argv[1:]]) if sys.argv[1:2] == ["train"] else "srgan train --config config.toml"
