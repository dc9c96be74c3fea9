"""The stored scores of the bundled models: which ones, under which names, and where.

A model's scores are in its own file and, from there, in `weights/manifest.toml`. `Set14` are the scores of the file
itself; `Set14@0.8` those of an interpolation, 0.8 of the way from the model that it was fine-tuned from (`srgan` only).
Scores of bicubic interpolation, which has no file, are in `bicubic.json` beside this module.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from srgan_cli.config import DEFAULT_DETAIL
from srgan_cli.errors import WeightsError
from srgan_cli.files import publish_bytes, reason
from srgan_cli.networks import registry
from srgan_cli.networks.registry import Entry

Scores = Mapping[str, Mapping[str, float]]  # of each test set, each number

CLEAN_SETS = ("Set5", "Set14", "BSD100")
JPEG_SETS = ("Set14", "BSD100")
JPEG_QUALITIES = (90, 75, 50, 30)
EXAMPLES = "examples"
SETS = (*CLEAN_SETS, EXAMPLES, *(f"{name}-jpeg{quality}" for name in JPEG_SETS for quality in JPEG_QUALITIES))
# The families with scores on compressed pictures: the one made for them, and the likely alternative.
JPEG_FAMILIES = ("photo", "srgan")

# Interpolations besides the default one, to show the effect of the detail; on one set, since it is similar on all.
DETAILS = tuple(i / 10 for i in range(11))
DETAIL_SET = "Set14"

# The numbers stored for each set, and their decimals.
PLACES = {
    "psnr_y_db": 3,
    "ssim_y": 4,
    "psnr_y_unrounded_db": 3,
    "vgg19_conv3_4": 4,
    "niqe": 4,
    "consistency_db": 3,
}

BICUBIC = Path(__file__).with_name("bicubic.json")


def pair_folders(data: Path, name: str, scale: int) -> tuple[Path, Path]:
    """The folders of a set's originals and low pictures. For ×2 the originals may be in the ×4 folder."""
    folder = data / name / f"x{scale}"
    high = folder / "high"
    return (data / name / "x4" / "high" if scale == 2 and not high.exists() else high), folder / "low"


def split_name(test_set: str) -> tuple[str, int | None]:
    """`Set14-jpeg30` -> the set it is made from and the JPEG quality of its low pictures; None: uncompressed."""
    match = re.fullmatch(r"(.+)-jpeg(\d{1,3})", test_set)
    return (match[1], int(match[2])) if match else (test_set, None)


def sources(entry: Entry) -> list[str]:
    """Everything measured of a bundled model, as arguments of `load_model`: the file itself, and its interpolations."""
    if registry.start_of(entry) is None:
        return [entry.name]
    return [f"{entry.name}@{detail:g}" for detail in sorted({*DETAILS, DEFAULT_DETAIL, 1.0})]


def score_name(method: str, test_set: str) -> tuple[str, str]:
    """`srgan-x4@0.8`, `Set14` -> the model that stores the score, and its key: `srgan-x4`, `Set14@0.8`."""
    name, detail = registry.split_detail(method)
    return name, test_set if detail in (None, 1.0) else f"{test_set}@{detail:g}"


def concerns(method: str, test_set: str) -> bool:
    """Whether a bundled model has a score on this set; other models have scores on all uncompressed sets."""
    name, detail = registry.split_detail(method)
    found = [entry for entry in registry.entries() if entry.name == name]
    _, quality = split_name(test_set)
    if quality is not None:  # as people use them
        return bool(found) and found[0].family in JPEG_FAMILIES and detail in (None, DEFAULT_DETAIL)
    return detail in (None, DEFAULT_DETAIL, 1.0) or test_set == DETAIL_SET


def kept(mean: Mapping[str, float]) -> dict[str, float]:
    """The numbers to store, rounded."""
    return {key: round(mean[key], places) for key, places in PLACES.items() if key in mean}


def merged(old: Scores, fresh: Scores) -> dict[str, dict[str, float]]:
    """`old` updated with new measurements, in the order in which sets and numbers are shown."""

    def place(name: str) -> tuple[int, str]:
        test_set = name.partition("@")[0]
        return SETS.index(test_set) if test_set in SETS else len(SETS), name

    names = sorted({*old, *fresh}, key=place)
    both = {name: {**old.get(name, {}), **fresh.get(name, {})} for name in names}
    return {name: {key: both[name][key] for key in PLACES if key in both[name]} for name in names}


# --------------------------------------------------------------------------------------------------------------- files


def bicubic_scores(scale: int) -> Scores:
    """The scores of bicubic interpolation at `scale`; empty if not measured."""
    found: dict[str, Scores] = json.loads(BICUBIC.read_text(encoding="utf-8")) if BICUBIC.exists() else {}
    return found.get(f"x{scale}", {})


def set_bicubic_scores(scale: int, scores: Scores) -> None:
    """Store new scores of bicubic interpolation at `scale`. Raises `WeightsError` if the file cannot be written."""
    found = json.loads(BICUBIC.read_text(encoding="utf-8")) if BICUBIC.exists() else {}
    found = dict(sorted({**found, f"x{scale}": scores}.items()))
    parts = []
    for name, sets in found.items():
        lines = ",\n".join(f"    {json.dumps(one)}: {json.dumps(values)}" for one, values in sets.items())
        parts.append(f"  {json.dumps(name)}: {{\n{lines}\n  }}")
    _replace(BICUBIC, ("{\n" + ",\n".join(parts) + "\n}\n").encode())


def set_scores(path: Path, scores: Scores) -> None:
    """Write new scores into a weights file's metadata. Its tensors stay unchanged, byte for byte.

    Raises `WeightsError` if the file is damaged or not srgan's, or cannot be written.
    """
    if registry.describe_file(path) is None:
        raise WeightsError(f"{path} was not made by srgan, so it has no scores")
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header["__metadata__"]["scores"] = json.dumps(scores)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # as in safetensors: the data begins at a multiple of eight
    _replace(path, len(text).to_bytes(8, "little") + text + data[start:])


def tensors_sha256(path: Path) -> str:
    """SHA-256 of a weights file without its header, independent of its scores."""
    data = path.read_bytes()
    return hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


def write_manifest(folder: Path) -> None:
    """Write `manifest.toml` for the files in `folder`. Raises `WeightsError` for a damaged one."""
    _replace(folder / "manifest.toml", registry.manifest(folder).encode())


def write_text(path: Path, text: str) -> None:
    """Write a document if it has changed. Raises `WeightsError` if it cannot be written."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        _replace(path, text.encode())


def _replace(path: Path, data: bytes) -> None:
    try:
        publish_bytes(path, data)
    except OSError as err:
        raise WeightsError(f"{path} cannot be written: {reason(err)}") from err
