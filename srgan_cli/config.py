"""All settings of the commands except training, with defaults and checks. Standard library only, so that `srgan --help`
is instant.

A value out of range raises `SettingsError` when its dataclass is created, never later.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from srgan_cli.checking import check_option, option_error
from srgan_cli.sizes import Size

Precision: TypeAlias = Literal["auto", "fp32", "fp16", "bf16"]
Strip: TypeAlias = Literal["none", "gps", "all"]
BitDepth: TypeAlias = Literal["keep", 8, 16]
ExportFormat: TypeAlias = Literal["onnx", "ncnn", "pth", "safetensors"]
TiffLayout: TypeAlias = Literal["strip", "tile", "pyramid"]

AUTO_MODEL = "auto"  # chosen for each picture, see upscaling.choice
DEFAULT_MODEL = "srgan"  # the model if none is given
# Where between `fidelity` (0) and `srgan` (1), see docs/MODELS.md: most of the perceptual gain for the smallest loss of
# fidelity.
DEFAULT_DETAIL = 0.9
# libvips and most decoders have no limit. One file in a folder must not exhaust the machine's memory.
DEFAULT_MAX_PIXELS = 2_000_000_000


@dataclass(frozen=True)
class PageRange:
    """Which pages or frames of a file, counted from 1; `last` None: up to the end."""

    first: int = 1
    last: int | None = None

    def __post_init__(self) -> None:
        check_option(
            self.first >= 1 and (self.last is None or self.last >= self.first),
            "--page expects N, N-M, N- or all, counted from 1, not "
            + (str(self.first) if self.is_single else f"{self.first}-{self.last or ''}"),
        )

    @property
    def is_all(self) -> bool:
        return self == PageRange()

    @property
    def is_single(self) -> bool:
        return self.first == self.last

    def of(self, count: int) -> range:
        """Those of these page numbers that exist in a file of `count` pages."""
        return range(self.first, min(count, self.last or count) + 1)

    @staticmethod
    def parse(text: str) -> PageRange:
        """`'all'`, `'3'`, `'2-5'` or `'2-'`. Raises `SettingsError`."""
        match = re.fullmatch(r"([0-9]{1,6})(-([0-9]{1,6})?)?", text.strip())
        if text.strip().lower() == "all":
            return PageRange()
        if match is None:
            raise option_error(f"--page expects N, N-M, N- or all, counted from 1, not {text!r}")
        first = int(match[1])
        return PageRange(first, first if match[2] is None else int(match[3]) if match[3] else None)


_DEVICE = r"auto|cpu|mps|(cuda|xpu|vulkan)(:\d{1,3})?|openvino(:(cpu|npu|gpu\d{0,2}))?"
_CPU_WORKERS = r"cpu:(\d{1,3})x(\d{1,3})"  # number of workers, and threads of each


@dataclass(frozen=True)
class WorkerOptions:
    """One of several workers: name, device, and number of threads (0: PyTorch's default)."""

    name: str
    device: str
    threads: int = 0


@dataclass(frozen=True)
class EngineOptions:
    """Where and how the network runs. `tile_px` None: chosen from the free memory.

    `device` may name several for one run (`cuda:0,cuda:1`, `cuda:all`, `cpu:4x8`: four workers with eight threads
    each).
    """

    device: str = "auto"
    precision: Precision = "auto"
    tile_px: int | None = None
    color_lock: bool | None = None  # None: on for adversarial weights
    ensemble: bool = False  # the mean of eight results, see `engine.ensemble`

    def __post_init__(self) -> None:
        check_option(
            all(re.fullmatch(rf"{_DEVICE}|(cuda|xpu):all|{_CPU_WORKERS}", one) for one in self.device.split(",")),
            f"--device must be auto, cpu, cuda[:N], mps, xpu, vulkan[:N] or openvino[:gpu|npu], or several: "
            f"cuda:0,cuda:1, cuda:all or cpu:WORKERSxTHREADS, not {self.device!r}",
        )
        check_option(
            self.precision in ("auto", "fp32", "fp16", "bf16"),
            f"--precision must be auto, fp32, fp16 or bf16, not {self.precision!r}",
        )
        counts = [re.fullmatch(_CPU_WORKERS, one) for one in self.device.split(",")]
        check_option(
            all(count is None or (int(count[1]) > 0 and int(count[2]) > 0) for count in counts),
            f"--device {self.device} needs at least one worker, and at least one thread for each",
        )
        check_option(
            self.tile_px is None or 1 <= self.tile_px <= 16384,
            f"--tile must be auto or between 1 and 16384 px, not {self.tile_px}",
        )

    @property
    def has_several_devices(self) -> bool:
        return re.fullmatch(_DEVICE, self.device) is None

    @property
    def workers(self) -> tuple[WorkerOptions, ...]:
        """One worker for each device in the list, in order. `cuda:all` is not expanded. Duplicates are dropped."""
        found: dict[str, WorkerOptions] = {}
        for one in self.device.split(","):
            counts = re.fullmatch(_CPU_WORKERS, one)
            names = [one] if counts is None else [f"cpu:{number}" for number in range(1, int(counts[1]) + 1)]
            for name in names:
                threads = 0 if counts is None else int(counts[2])
                found[name] = WorkerOptions(name, "cpu" if counts else one, threads)
        return tuple(found.values())


@dataclass(frozen=True)
class WriteOptions:
    """How a result is encoded.

    `format` None: by the target's extension, else the input's own format if it is supported for output. `quality` None:
    the format's default. `background`, 8-bit RGB, is what transparency is composited over if the format has none.
    """

    format: str | None = None
    quality: int | None = None
    png_level: int = 1
    lossless: bool = False
    bit_depth: BitDepth = "keep"
    strip: Strip = "none"
    background: tuple[int, int, int] | None = None
    keep_time: bool = False
    tiff_layout: TiffLayout = "strip"
    tiff_tile_px: int = 256
    keep_text: bool = False  # keep PNG text (prompts, workflows) in EXIF's UserComment if the result is not a PNG

    def __post_init__(self) -> None:
        check_option(
            self.quality is None or 1 <= self.quality <= 100,
            f"--quality must be between 1 and 100, not {self.quality}",
        )
        check_option(0 <= self.png_level <= 9, f"--png-level must be between 0 and 9, not {self.png_level}")
        check_option(self.bit_depth in ("keep", 8, 16), f"--bit-depth must be keep, 8 or 16, not {self.bit_depth!r}")
        check_option(
            self.tiff_layout in get_args(TiffLayout),
            f"--tiff-layout must be strip, tile or pyramid, not {self.tiff_layout!r}",
        )
        check_option(
            self.tiff_layout == "strip" or self.format in (None, "tiff", "tif"),
            f"--tiff-layout does not apply to {self.format}",
        )
        check_option(
            16 <= self.tiff_tile_px <= 4096 and self.tiff_tile_px % 16 == 0,
            f"--tile-size must be a multiple of 16 px up to 4096, not {self.tiff_tile_px}",
        )
        check_option(self.strip in ("none", "gps", "all"), f"--strip must be gps, all or none, not {self.strip!r}")
        check_option(
            self.background is None or (len(self.background) == 3 and all(0 <= v <= 255 for v in self.background)),
            "--background must be three numbers between 0 and 255",
        )


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a run's pictures, numbered from 1. The part depends on the picture's name only, so
    processes that do not communicate agree on it."""

    number: int
    count: int

    def __post_init__(self) -> None:
        check_option(
            1 <= self.number <= self.count <= 1_000_000,
            f"--shard must be K/N with K from 1 to N, and N up to 1000000, not {self.number}/{self.count}",
        )

    def has(self, name: str) -> bool:
        """Whether a picture of that name belongs to this part. The extension and upper or lower case make no
        difference."""
        digest = hashlib.sha256(name.casefold().encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1

    @staticmethod
    def parse(text: str) -> Shard:
        """`'3/10'` -> the third of ten."""
        match = re.fullmatch(r"(\d{1,15})\s*/\s*(\d{1,15})", text.strip(), re.ASCII)
        if match is None:
            raise option_error(f"--shard expects K/N, for example 3/10 for the third of ten parts, not {text!r}")
        return Shard(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class RayOptions:
    """A Ray cluster to run on: `local` (a new one), `auto` or an address; and the resources of each worker."""

    address: str = "local"
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        check_option(
            re.fullmatch(r"local|auto|ray://\S+|[\w.\-]+:\d+", self.address) is not None,
            f"--ray expects local, auto or an address such as ray://head:10001, not {self.address!r}; "
            "put --ray=local before an input",
        )
        check_option(0 < self.cpus <= 4096, f"--ray-cpus must be above 0, not {self.cpus:g}")
        check_option(0 <= self.gpus <= 64, f"--ray-gpus must be from 0 to 64, not {self.gpus:g}")


def check_noise(seed: int, variations: Sequence[float]) -> None:
    """Raises `SettingsError` if `--seed` or `--variation` is out of range."""
    check_option(0 <= seed < 2**62, f"--seed must be a whole number from 0 to {2**62 - 1}, not {seed}")
    for variation in variations:
        check_option(0.0 <= variation <= 1.0, f"--variation must be between 0 and 1, not {variation}")


@dataclass(frozen=True)
class UpscaleOptions:
    """Settings of one `srgan upscale`: inputs, what to do with them, and where results go."""

    inputs: tuple[Path, ...] = ()
    output: Path | None = None
    output_is_folder: bool = False  # `-o large/`: a folder, even if it does not exist yet
    model: str = AUTO_MODEL
    detail: float | None = None  # of srgan, from 0 (closest to the original) to 1; None: DEFAULT_DETAIL
    # Film grain to add: auto (as much as the input has), or a strength from 0 to 1.
    grain: float | Literal["auto"] | None = None
    # For networks that draw detail from noise: the fraction of the noise to use, from 0 to 1; None: all. The `variants`
    # of a picture use consecutive seeds from `seed` on. The same seed gives the same file, grain included.
    variation: float | None = None
    variants: int = 1
    seed: int = 0
    size: Size = field(default_factory=Size)
    engine: EngineOptions = field(default_factory=EngineOptions)
    write: WriteOptions = field(default_factory=WriteOptions)
    pages: PageRange = field(default_factory=PageRange)
    recursive: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    name_pattern: str | None = None
    strict_names: bool = False  # two results of the same name are an error; by default both are renamed
    overwrite: bool = False
    skip_existing: bool = False
    resume: bool = False
    fail_fast: bool = False
    shard: Shard | None = None
    ray: RayOptions | None = None
    split_pixels: int = 50_000_000  # a larger picture is divided among all workers, band by band
    max_pixels: int = DEFAULT_MAX_PIXELS
    accept_damaged: bool = False  # upscale the part of a damaged picture that can be decoded
    timeout_s: float | None = None  # time limit for one picture, from its first row to its file
    # Maximum bytes of decoded pictures, and of finished pictures waiting for the encoder.
    queue_bytes: int = 512 << 20

    def __post_init__(self) -> None:
        check_option(
            sum((self.overwrite, self.skip_existing, self.resume)) <= 1,
            "give only one of --overwrite, --skip-existing and --resume",
        )
        check_option(self.max_pixels >= 1, "--max-pixels must be at least 1")
        check_option(self.split_pixels >= 0, "--split-pixels must not be negative")
        check_option(
            self.timeout_s is None or 0 < self.timeout_s < float("inf"),
            f"--timeout must be a number of seconds above 0, not {self.timeout_s}",
        )
        check_option(
            self.detail is None or 0.0 <= self.detail <= 1.0, f"--detail must be between 0 and 1, not {self.detail}"
        )
        if self.name_pattern is not None:
            _check_pattern(self.name_pattern)
        check_option(
            self.grain in (None, "auto") or (not isinstance(self.grain, str) and 0.0 <= self.grain <= 1.0),
            f"--grain must be auto or between 0 and 1, not {self.grain}",
        )
        check_noise(self.seed, () if self.variation is None else (self.variation,))
        check_option(1 <= self.variants <= 100, f"--variants must be between 1 and 100, not {self.variants}")
        check_option(
            self.variants == 1 or self.variation != 0 or self.has_grain,
            "--variation 0 makes all variants the same: give a larger one, or --grain",
        )
        if self.engine.ensemble:
            check_option(
                not self.variation, "--ensemble averages the variants that --variation asks for: give only one of them"
            )
            check_option(
                self.variants == 1 or self.has_grain, "--ensemble makes all variants the same: give --grain, or one"
            )
        if self.variants > 1 and self.name_pattern is not None:
            check_option(
                "{variant" in self.name_pattern,
                f"--variants makes {self.variants} results of each picture: put {{variant}} into --name",
            )

    @property
    def has_grain(self) -> bool:
        return self.grain not in (None, 0)

    @property
    def has_crew(self) -> bool:
        """Whether other processes run the networks and this one coordinates them."""
        return self.engine.has_several_devices or self.ray is not None


_PATTERN_FIELDS = {
    "stem": "a",
    "ext": ".png",
    "scale": "4",
    "model": "m",
    "width": 1,
    "height": 1,
    "index": 1,
    "page": 1,
    "variant": 1,
}


def _check_pattern(pattern: str) -> None:
    """Check a `--name` pattern: plain field names, with a width of at most three digits and no other format syntax, so
    that an untrusted pattern can neither use much memory nor read anything else."""
    try:
        for _, name, spec, conversion in string.Formatter().parse(pattern):
            if name is not None and (name not in _PATTERN_FIELDS or conversion or re.search(r"\d{4}|[{}]", spec or "")):
                raise ValueError(name)
        example = pattern.format(**_PATTERN_FIELDS)
    except (KeyError, IndexError, ValueError) as err:
        raise option_error(
            f"--name {pattern!r} is not a pattern: use {{stem}}, {{ext}}, {{scale}}, {{model}}, "
            "{width}, {height}, {index}, {page} and {variant}, as in {stem}-{index:03}{ext}"
        ) from err
    check_option(example != "", "--name is empty (an unset variable?)")
    check_option(not set("/\\\0") & set(example), "--name must be a file name, without folders")


EXPORT_SUFFIXES: dict[str, ExportFormat] = {
    ".onnx": "onnx",
    ".param": "ncnn",
    ".pth": "pth",
    ".safetensors": "safetensors",
}


@dataclass(frozen=True)
class ExportOptions:
    """Settings of one `srgan export`: the file to write (for ncnn the `.param`; the `.bin` goes beside it), and how.

    `format` None: by the file's extension. `half`: weights in fp16, and for ONNX the arithmetic too. `openmodeldb`:
    where to write the record for OpenModelDB, with `author` as the author.
    """

    output: Path
    format: ExportFormat | None = None
    half: bool = False
    overwrite: bool = False
    openmodeldb: Path | None = None
    author: str | None = None

    def __post_init__(self) -> None:
        by_suffix = EXPORT_SUFFIXES.get(self.output.suffix.lower())
        if self.format is None:
            *others, last = EXPORT_SUFFIXES
            endings = f"{', '.join(others)} or {last}"
            check_option(by_suffix is not None, f"-o {self.output} must end in {endings}; otherwise give --format")
            object.__setattr__(self, "format", by_suffix)
        elif by_suffix is None:
            suffix = next(suffix for suffix, name in EXPORT_SUFFIXES.items() if name == self.format)
            object.__setattr__(self, "output", self.output.with_name(self.output.name + suffix))
        check_option(by_suffix in (None, self.format), f"-o {self.output} does not fit --format {self.format}")
        check_option(self.author is None or self.openmodeldb is not None, "--author goes with --openmodeldb")

    @property
    def files(self) -> tuple[Path, ...]:
        """The files to be written, `output` first."""
        return (self.output, self.output.with_suffix(".bin")) if self.format == "ncnn" else (self.output,)
