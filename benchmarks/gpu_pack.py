"""What the GPU programme packs for the other machine, and how its results look in docs/BENCHMARKS.md."""

from __future__ import annotations

import importlib.metadata
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "BENCHMARKS.md"
MAX_BYTES = 60 << 20
FOLDERS = ("srgan_cli", "weights", "benchmarks", "tests", "scripts", "examples")
# What a machine with only PyTorch lacks; compiled parts are for this Python and system.
PACKAGES = (
    "pyvips",
    "pyvips-binary",
    "cffi",
    "pycparser",
    "hypothesis",
    "sortedcontainers",
    "filelock",
    "platformdirs",
)
VENDOR = "vendor"
PICTURES = "pictures"
_BEGIN, _END = "<!-- gpu programme: begin -->", "<!-- gpu programme: end -->"

Line: TypeAlias = Mapping[str, Any]


def pictures() -> Path:
    """The pictures of a pack; in a checkout, the few of examples/, which are enough for --tiny."""
    packed = ROOT / PICTURES
    return packed if packed.is_dir() else ROOT / "examples"


def pack(target: Path, pictures: Path) -> int:
    """Write a tar of the project, of the missing packages, and of as many pictures as fit; returns its size in
    bytes."""
    with tarfile.open(target, "w") as tar:
        for folder in FOLDERS:
            tar.add(ROOT / folder, folder, filter=_without_caches)
        for file in ("pyproject.toml", "LICENSE", "README.md"):
            tar.add(ROOT / file, file)
        for source, name in _packages():
            tar.add(source, f"{VENDOR}/{name}")
        for path in _photos(pictures):
            # 512 bytes for its entry, up to 511 of padding, and 10 KiB for the end of the tar
            if tar.offset + path.stat().st_size + 1024 > MAX_BYTES - 10240:
                break
            tar.add(path, f"{PICTURES}/{path.relative_to(pictures)}")
    size = target.stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"{target} has {size / 2**20:.1f} MiB, and the most is {MAX_BYTES >> 20}")
    return size


def _without_caches(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in info.name or info.name.endswith(".pyc") else info


def _packages() -> Iterator[tuple[Path, str]]:
    for package in PACKAGES:
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            path = Path(str(file.locate()))
            if path.is_file() and path.suffix != ".pyc" and ".." not in file.parts:
                yield path, str(file)


def _photos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))


# ----------------------------------------------------------------------------------------------------------- tables


def read(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def tables(path: Path) -> str:
    """Markdown: for each device and part a table of the results, and a list of what could not be measured."""
    lines = read(path)
    parts: dict[tuple[str, str, str], list[Line]] = {}
    for line in lines:
        if line["case"] != "end":
            parts.setdefault((line["device"], line["part"], line["case"]), []).append(line)
    text: list[str] = []
    device = ""
    for (found_device, part, case), findings in parts.items():
        if found_device != device:
            device = found_device
            text += [f"### {device}", "", f"PyTorch {findings[0]['torch']}; `scripts/gpu-programme PART`.", ""]
        text += [f"`{part}`" + (f", {case}" if case != part else ""), ""]
        text += [*_table([f for f in findings if "skipped" not in f and "failed" not in f]), ""]
        text += [f"- {_told(f)}" for f in findings if "skipped" in f or "failed" in f]
        text += [""] if text[-1] else []
    return re.sub(r"\n{3,}", "\n\n", "\n".join(text)).strip() + "\n"


_COMMON = frozenset(("part", "case", "device", "torch", "tiny", "options", "command", "failures", "said"))


def _table(findings: Sequence[Line]) -> list[str]:
    names = list(dict.fromkeys(name for line in findings for name in line if name not in _COMMON))
    if not names:
        return []
    rows = ["| " + " | ".join(_cell(line.get(name, "")) for name in names) + " |" for line in findings]
    return ["| " + " | ".join(_heading(name) for name in names) + " |", "| --- " * len(names) + "|", *rows]


_UNITS = {"mpx_per_s": "Mpx/s", "px": "px", "mib": "MiB", "s": "s"}
_HEADINGS = {
    "tflops": "TFLOP/s",
    "gigabytes_per_second": "GB/s",
    "times_peer": "times as fast as peer",
    "roofline_fraction": "fraction of roofline",
}


def _heading(name: str) -> str:
    """`engine_mpx_per_s` -> `engine, Mpx/s`."""
    for ending, unit in _UNITS.items():
        if name.endswith(f"_{ending}"):
            return f"{name.removesuffix(f'_{ending}').replace('_', ' ')}, {unit}"
    return _HEADINGS.get(name, name.replace("_", " "))


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _told(line: Line) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in line.items() if name not in (*_COMMON, "skipped", "failed"))
    return f"{facts or line['case']}: " + _cell(line.get("skipped", line.get("failed")))


def write_tables(text: str, page: Path = PAGE) -> None:
    """Insert between the two marks in docs/BENCHMARKS.md, or at its end."""
    old = page.read_text(encoding="utf-8")
    block = f"{_BEGIN}\n\n## On GPUs\n\n{text}\n{_END}\n"
    marked = re.compile(re.escape(_BEGIN) + ".*?" + re.escape(_END) + "\n", re.DOTALL)
    new = marked.sub(lambda _match: block, old) if marked.search(old) else f"{old.rstrip()}\n\n{block}"
    page.write_text(new, encoding="utf-8")


def names_in(path: Path) -> Iterable[str]:
    """The names in a pack."""
    with tarfile.open(path) as tar:
        return tar.getnames()
