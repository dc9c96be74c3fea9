"""Every setting, its default and its check. Standard library only, so that `srgan --help` is instant.

A setting that is out of range raises `SettingsError` when its dataclass is made, never later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from srgan_cli.errors import SettingsError

Precision: TypeAlias = Literal["auto", "fp32", "fp16", "bf16"]
Strip: TypeAlias = Literal["none", "gps", "all"]
BitDepth: TypeAlias = Literal["keep", 8, 16]
ExportFormat: TypeAlias = Literal["onnx", "ncnn", "pth", "safetensors"]

AUTO_MODEL = "auto"  # chosen for each picture, see upscaling.choice
DEFAULT_MODEL = "srgan"  # where nothing is chosen
# How far from `fidelity` to `srgan`, see docs/MODELS.md: most of the gain in looks for the least loss.
DEFAULT_DETAIL = 0.9
MAX_SCALE = 16.0
# libvips and most decoders refuse nothing; a person who points at a folder should not lose the machine to one file.
DEFAULT_MAX_PIXELS = 2_000_000_000


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise SettingsError(message)


@dataclass(frozen=True)
class Size:
    """How large the result is to be: exactly one of the fields is set (`scale` 4 when none is).

    `fit` is a box (width, height) in px that the result just fills, keeping its proportions.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    long_side: int | None = None
    fit: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("scale", "width", "height", "long_side", "fit") if getattr(self, name) is not None]
        _check(
            len(given) <= 1,
            f"give only one of --scale, --width, --height, --long-side and --fit (got {', '.join(given)})",
        )
        if not given:
            object.__setattr__(self, "scale", 4.0)
        if self.scale is not None:
            _check(1.0 < self.scale <= MAX_SCALE, f"--scale must be above 1 and at most 16, not {self.scale:g}")
        for name in ("width", "height", "long_side"):
            value = getattr(self, name)
            _check(value is None or value >= 1, f"--{name.replace('_', '-')} must be at least 1 px")
        _check(self.fit is None or min(self.fit) >= 1, "--fit must be at least 1x1 px")

    def target(self, width: int, height: int) -> tuple[int, int]:
        """Size of the result in px for an input of `width` × `height` px.

        Raises `SettingsError` when that is not an enlargement, or one of more than 16 times.
        """
        if self.scale is not None:
            return max(1, round(width * self.scale)), max(1, round(height * self.scale))
        if self.width is not None:
            ratio = self.width / width
        elif self.height is not None:
            ratio = self.height / height
        elif self.long_side is not None:
            ratio = self.long_side / max(width, height)
        else:
            assert self.fit is not None
            ratio = min(self.fit[0] / width, self.fit[1] / height)
        result = max(1, round(width * ratio)), max(1, round(height * ratio))
        if ratio < 1.0:
            raise SettingsError(
                f"{result[0]}x{result[1]} px is smaller than the picture itself ({width}x{height} px), "
                "and srgan only enlarges"
            )
        _check(
            ratio <= MAX_SCALE,
            f"{result[0]}x{result[1]} px is more than 16 times the picture's own size ({width}x{height} px)",
        )
        return result

    @staticmethod
    def parse_box(text: str) -> tuple[int, int]:
        """`'1920x1080'` -> `(1920, 1080)`."""
        match = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", text.strip().lower())
        if match is None:
            raise SettingsError(f"--fit wants WIDTHxHEIGHT in px, for example 3840x2160, not {text!r}")
        return int(match[1]), int(match[2])


@dataclass(frozen=True)
class EngineOptions:
    """Where and how the network runs. `tile_px` None means: chosen from the memory that is free."""

    device: str = "auto"
    precision: Precision = "auto"
    tile_px: int | None = None
    color_lock: bool | None = None  # None: on for adversarial weights

    def __post_init__(self) -> None:
        _check(
            re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device) is not None,
            f"--device must be auto, cpu, cuda, cuda:N or mps, not {self.device!r}",
        )
        _check(
            self.precision in ("auto", "fp32", "fp16", "bf16"),
            f"--precision must be auto, fp32, fp16 or bf16, not {self.precision!r}",
        )
        _check(
            self.tile_px is None or 1 <= self.tile_px <= 16384,
            f"--tile must be auto or between 1 and 16384 px, not {self.tile_px}",
        )


@dataclass(frozen=True)
class WriteOptions:
    """How a result is encoded.

    `format` None means: by the target's extension, else the input's own format where it can be written.
    `quality` None means the format's own default. `background` is what transparency is laid on, 8-bit RGB, when the
    format has none.
    """

    format: str | None = None
    quality: int | None = None
    png_level: int = 1
    lossless: bool = False
    bit_depth: BitDepth = "keep"
    strip: Strip = "none"
    background: tuple[int, int, int] | None = None
    keep_time: bool = False

    def __post_init__(self) -> None:
        _check(
            self.quality is None or 1 <= self.quality <= 100,
            f"--quality must be between 1 and 100, not {self.quality}",
        )
        _check(0 <= self.png_level <= 9, f"--png-level must be between 0 and 9, not {self.png_level}")
        _check(self.bit_depth in ("keep", 8, 16), f"--bit-depth must be keep, 8 or 16, not {self.bit_depth!r}")
        _check(self.strip in ("none", "gps", "all"), f"--strip must be gps or all, not {self.strip!r}")
        _check(
            self.background is None or (len(self.background) == 3 and all(0 <= v <= 255 for v in self.background)),
            "--background must be three numbers between 0 and 255",
        )


@dataclass(frozen=True)
class UpscaleOptions:
    """One `srgan upscale`: what to read, what to make of it, where to put it."""

    inputs: tuple[Path, ...] = ()
    output: Path | None = None
    output_is_folder: bool = False  # `-o large/`: a folder, also when it is not there yet
    model: str = AUTO_MODEL
    detail: float | None = None  # of srgan, from 0 (true to the picture) to 1; None: DEFAULT_DETAIL
    size: Size = field(default_factory=Size)
    engine: EngineOptions = field(default_factory=EngineOptions)
    write: WriteOptions = field(default_factory=WriteOptions)
    recursive: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    name_pattern: str | None = None
    overwrite: bool = False
    skip_existing: bool = False
    resume: bool = False
    fail_fast: bool = False
    max_pixels: int = DEFAULT_MAX_PIXELS
    # Bytes of decoded pictures, and of finished ones that wait for their encoder, held at a time.
    queue_bytes: int = 512 << 20

    def __post_init__(self) -> None:
        _check(
            sum((self.overwrite, self.skip_existing, self.resume)) <= 1,
            "give only one of --overwrite, --skip-existing and --resume",
        )
        _check(self.max_pixels >= 1, "--max-pixels must be at least 1")
        _check(self.detail is None or 0.0 <= self.detail <= 1.0, f"--detail goes from 0 to 1, not {self.detail}")
        if self.name_pattern is not None:
            try:
                name = self.name_pattern.format(stem="a", ext=".png", scale="4", model="m", width=1, height=1, index=1)
            except (KeyError, IndexError, ValueError) as err:
                raise SettingsError(
                    f"--name {self.name_pattern!r} is not a pattern: use {{stem}}, {{ext}}, {{scale}}, {{model}}, "
                    "{width}, {height} and {index}"
                ) from err
            _check("/" not in name and "\\" not in name and name != "", "--name must be a file name, without folders")


EXPORT_SUFFIXES: dict[str, ExportFormat] = {
    ".onnx": "onnx",
    ".param": "ncnn",
    ".pth": "pth",
    ".safetensors": "safetensors",
}


@dataclass(frozen=True)
class ExportOptions:
    """One `srgan export`: the file to write, for ncnn the `.param` beside which the `.bin` goes, and how.

    `format` None: what the file's name says. `half`: weights, and for ONNX the arithmetic, as fp16.
    """

    output: Path
    format: ExportFormat | None = None
    half: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        told = EXPORT_SUFFIXES.get(self.output.suffix.lower())
        if self.format is None:
            _check(told is not None, f"-o {self.output} must end in {', '.join(EXPORT_SUFFIXES)}, or give --format")
            object.__setattr__(self, "format", told)
        elif told is None:
            suffix = next(suffix for suffix, name in EXPORT_SUFFIXES.items() if name == self.format)
            object.__setattr__(self, "output", self.output.with_name(self.output.name + suffix))
        _check(told in (None, self.format), f"-o {self.output} does not fit --format {self.format}")

    @property
    def files(self) -> tuple[Path, ...]:
        """What will be written, `output` first."""
        return (self.output, self.output.with_suffix(".bin")) if self.format == "ncnn" else (self.output,)
