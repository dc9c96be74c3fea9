"""A model's record for OpenModelDB (openmodeldb.info), in its JSON format. Does not import torch.

The fields are those of its `schema.ts`; tags and architectures those of its `data/tags.json` and
`data/architectures.json`. An architecture that is missing there is called `srgan-NAME`, and has to be added there
first.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from srgan_cli.errors import WeightsError
from srgan_cli.files import file_sha256
from srgan_cli.networks.registry import Card

AUTHOR = "the-srgan-developers"
_ARCHITECTURES = {"srvgg": "compact", "srresnet": "sr-res-net"}
_PLATFORMS = {".onnx": "onnx", ".param": "ncnn", ".bin": "ncnn"}
_SPDX = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")
_ID = re.compile(r"[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*")


@dataclass(frozen=True)
class Subject:
    """The model: its card (None for another program's file), and facts about its network."""

    name: str
    card: Card | None
    architecture: str
    config: Mapping[str, object]
    scale: int
    channels: int = 3


def record(
    subject: Subject, files: tuple[Path, ...], *, author: str = AUTHOR, date: str | None = None
) -> dict[str, object]:
    """The JSON as plain values. `date` is that of publication, YYYY-MM-DD; None: today.

    Raises `WeightsError` for an invalid author name.
    """
    if not _ID.fullmatch(author):
        raise WeightsError(f"{author!r} cannot be an author in OpenModelDB: letters and digits, joined by single -")
    card = subject.card
    licence = card.licence if card is not None else ""
    return {
        "name": subject.name,
        "author": author,
        "license": licence if _SPDX.fullmatch(licence) else None,
        "tags": list(_tags(card)),
        "description": (card.description if card is not None else "") or subject.name,
        "date": date or datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "architecture": _ARCHITECTURES.get(subject.architecture, f"srgan-{subject.architecture}"),
        "size": _size(subject),
        "scale": subject.scale,
        "inputChannels": subject.channels,
        "outputChannels": subject.channels,
        "resources": [_resource(path) for path in files],
        "images": [],
        **(dict(_training(card.recipe)) if card is not None else {}),
    }


def to_json(value: Mapping[str, object]) -> str:
    return json.dumps(value, indent=4, ensure_ascii=False) + "\n"


def _tags(card: Card | None) -> Iterator[str]:
    yield "general-upscaler"
    yield "photo"
    degradation = card.recipe.get("degradation") if card is not None else None
    if isinstance(degradation, Mapping) and degradation.get("kind") == "photo":
        yield from ("restoration", "jpeg", "denoise", "deblur")


def _size(subject: Subject) -> list[str] | None:
    blocks = "nc" if subject.architecture == "srvgg" else "nb"
    names = {"features": "nf", "blocks": blocks}
    return [f"{subject.config[key]}{unit}" for key, unit in names.items() if key in subject.config] or None


def _resource(path: Path) -> dict[str, object]:
    return {
        "platform": _PLATFORMS.get(path.suffix.lower(), "pytorch"),
        "type": path.suffix.lower()[1:],
        "size": path.stat().st_size,
        "sha256": file_sha256(path),
        "urls": [],
    }


def _training(recipe: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    if isinstance(recipe.get("steps"), int):
        yield "trainingIterations", recipe["steps"]
    phases = [recipe[key] for key in ("adversarial", "fidelity") if isinstance(recipe.get(key), Mapping)]
    for phase in phases[:1]:
        assert isinstance(phase, Mapping)
        names = {"trainingBatchSize": "batch", "trainingHRSize": "crop_px"}
        yield from ((name, phase[key]) for name, key in names.items() if isinstance(phase.get(key), int))
    if isinstance(recipe.get("pictures"), int):
        yield "datasetSize", recipe["pictures"]
