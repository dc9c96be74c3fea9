"""From options to a contact sheet or a page: pictures, or what models make of a picture, side by side.

pictures ───────────┐
                    ├──> scenes ──> places ──> sheet.png, rows of crops
a picture, models ──┘                     └──> page.html, whole pictures under a slider
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from srgan_cli.comparison.gallery import build_gallery, pairs_of
from srgan_cli.comparison.places import Spot, difference, most_different
from srgan_cli.comparison.scenes import (
    Area,
    Enlarged,
    Enlarging,
    Scene,
    Still,
    View,
    labels_of,
    read_shown,
    together,
)
from srgan_cli.comparison.sheet import SheetRow, draw_sheet, row_of
from srgan_cli.comparison.viewer import Exhibit, build_page
from srgan_cli.config import EngineOptions, WriteOptions, check_noise
from srgan_cli.errors import ExitCode, NothingToDoError, PictureError, SettingsError, shown
from srgan_cli.evaluation.session import load_upscalers, shared_scale
from srgan_cli.evaluation.variants import variants
from srgan_cli.files import is_folder
from srgan_cli.imaging.formats import PICTURE_SUFFIXES
from srgan_cli.imaging.image import Header, Pixels
from srgan_cli.imaging.output import decide, output_format
from srgan_cli.imaging.writing import check_place, write_picture, write_text
from srgan_cli.sizes import MAX_SCALE
from srgan_cli.wording import counted, none_of, size

if TYPE_CHECKING:
    from srgan_cli.engine.upscaler import Upscaler

PAGE_SUFFIXES = (".html", ".htm")
LOW, BICUBIC, ORIGINAL = "low", "bicubic", "original"

_SHEET_CROPS, _SHEET_CROP_PX = 4, 192
_PAGE_CROPS, _PAGE_CROP_PX = 6, 1024
_PLACE_PX = 256  # places that a page offers to jump to
# Models' results for a page are computed whole up to this many px in total: about ten seconds on a CPU.
_PAGE_PIXELS = 96_000_000
# If a picture is too large to be enlarged whole, this many crops are tried for each one wanted.
_TRIES, _MIN_TRIES = 4, 16


@dataclass(frozen=True)
class CompareOptions:
    """Settings of one `srgan compare`. Without `models` the inputs are views of one scene; with them each input is
    enlarged by each model.

    `crops` and `crop_px` (in px of the largest picture) None: a default for the output. `page_bytes` is the approximate
    maximum size of a page. `variants` of each model's result use consecutive seeds from `seed` on, each with all
    strengths in `variations`.
    """

    inputs: tuple[Path, ...]
    output: Path
    models: tuple[str, ...] = ()
    scale: int | None = None
    high: Path | None = None
    high_dir: Path | None = None
    show_low: bool = False
    labels: tuple[str, ...] = ()
    at: tuple[Spot, ...] = ()
    crops: int | None = None
    crop_px: int | None = None
    zoom_percent: int = 200
    smooth: bool = False
    enlarging: Enlarging = "bicubic"
    page_bytes: int = 48_000_000
    overwrite: bool = False
    engine: EngineOptions = field(default_factory=EngineOptions)
    variants: int = 1
    seed: int = 0
    variations: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.variants <= 16:
            raise SettingsError(f"--variants must be between 1 and 16, not {self.variants}")
        check_noise(self.seed, self.variations)
        _refuse_folders(self)
        if not self.models:
            _refuse_without_models(self)
        _check_originals(self)
        if self.scale is not None and not 2 <= self.scale <= MAX_SCALE:
            raise SettingsError(f"--scale must be between 2 and {MAX_SCALE:g}, not {self.scale}")
        _check_places(self)
        _check_zoom(self)
        if self.page_bytes < 1_000_000:
            raise SettingsError("--page-mb must be at least 1")

    @property
    def is_gallery(self) -> bool:
        return len(self.inputs) == 2 and all(is_folder(path) for path in self.inputs)

    @property
    def is_page(self) -> bool:
        return self.output.suffix.lower() in PAGE_SUFFIXES


def _check_originals(options: CompareOptions) -> None:
    """Check for one original for one input, or a folder of them."""
    if options.high is not None and options.high_dir is not None:
        raise SettingsError("--hr names one original and --hr-dir a folder of them; give one of the two")
    if options.high is not None and len(options.inputs) != 1:
        raise SettingsError(f"--hr is the original of one PICTURE, but there are {len(options.inputs)}; give --hr-dir")


def _check_places(options: CompareOptions) -> None:
    """Check where to cut, and how large."""
    if options.crops is not None and not 1 <= options.crops <= 100:
        raise SettingsError(f"--crops must be between 1 and 100, not {options.crops}")
    if options.crops is not None and options.at:
        raise SettingsError("--at gives the places, and --crops how many to find; give one of the two")
    if options.crop_px is not None and not 16 <= options.crop_px <= 4096:
        raise SettingsError(f"--crop-px must be between 16 and 4096, not {options.crop_px}")


def _check_zoom(options: CompareOptions) -> None:
    """Check for integer factors, or smooth."""
    if not 100 <= options.zoom_percent <= 400:
        raise SettingsError(f"--zoom must be between 100 and 400 (per cent), not {options.zoom_percent}")
    if options.zoom_percent % 100 and not options.smooth:
        raise SettingsError(f"--zoom {options.zoom_percent} would show some pixels wider than others; give 100, 200, "
                            "300 or 400, or --smooth")  # fmt: skip


def _refuse_folders(options: CompareOptions) -> None:
    """Folders can only be compared with each other, and on a page."""
    folders = [path for path in options.inputs if is_folder(path)]
    missing = [path for path in options.inputs if not os.path.lexists(path)]
    if folders and missing:
        raise SettingsError(
            f"{shown(folders[0])} is a folder, and {shown(missing[0])} does not exist: give two folders"
        )
    if folders and (len(folders) != len(options.inputs) or len(folders) != 2 or options.models):
        raise SettingsError(f"{shown(folders[0])} is a folder: give two folders, for a gallery of the pictures in both")
    if folders and not options.is_page:
        raise SettingsError("a gallery of two folders is a page: give -o a name with the extension .html")


def _refuse_without_models(options: CompareOptions) -> None:
    if len(options.inputs) < 2:
        raise SettingsError("give at least two pictures, or one and --models")
    absolute = [path.absolute() for path in options.inputs]
    twice = next((path for i, path in enumerate(absolute) if path in absolute[:i]), None)
    if twice is not None:
        raise SettingsError(f"{shown(twice.name)} is given twice")
    names = (("--variants", options.variants > 1), ("--hr", options.high), ("--hr-dir", options.high_dir),
             ("--scale", options.scale), ("--lr", options.show_low), ("--seed", options.seed),
             ("--variation", options.variations))  # fmt: skip
    for option, value in names:
        if value:
            raise SettingsError(f"{option} is for --models; without it, give every picture as an input")


@dataclass(frozen=True)
class ComparisonReport:
    """The outcome: `summary` describes the sheet or page; `failures` are sentences, one per input."""

    summary: str
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.SOME_FAILED if self.failures else ExitCode.DONE


def compare_pictures(
    options: CompareOptions, *, advance: Callable[[int, int, str], None] = lambda _n, _all, _name: None
) -> ComparisonReport:
    """Make the sheet or the page. `advance` is called with the number of inputs started, the total, and the name.

    With models, an unreadable input is left out and named in the report; without, it is an error. Raises
    `SettingsError`, `NothingToDoError`, `WeightsError`, `DeviceError` and `UnwritablePictureError`.
    """
    _check_output(options)
    if options.is_gallery:
        return _gallery(options, advance)
    notes: list[str] = []
    failures: list[str] = []
    if options.models:
        scenes = _models_scenes(options, advance, notes.append, failures.append)
    else:
        scenes = iter([_pictures_scene(options, advance, notes.append)])
    summary = _page(options, scenes) if options.is_page else _sheet(options, scenes)
    if summary is None:
        raise NothingToDoError(f"{none_of(len(failures), 'picture', 'be read')}: {failures[0]}")
    return ComparisonReport(summary, tuple(notes), tuple(failures))


def _gallery(options: CompareOptions, advance: Callable[[int, int, str], None]) -> ComparisonReport:
    first, second = options.inputs
    pairs, notes = pairs_of(first, second)
    html, failures = build_gallery(f"{shown(first)} | {shown(second)}", pairs, options.output, advance=advance)
    if len(failures) == len(pairs):
        raise NothingToDoError(f"{none_of(len(pairs), 'pair', 'be read')}: {failures[0]}")
    write_text(options.output, html)
    count = len(pairs) - len(failures)
    summary = f"{counted(count, 'pair')}, the largest change first; {size(len(html))}"
    return ComparisonReport(summary, tuple(notes), tuple(failures))


def _check_output(options: CompareOptions) -> None:
    """Refuse before the work whatever can be refused."""
    path = options.output
    if not options.is_page:
        if not path.suffix:
            raise SettingsError(
                f"-o {shown(path)} has no extension; give .png (or that of another picture format) or .html"
            )
        try:
            output_format(path, _header(1, 1), WriteOptions())
        except SettingsError as err:
            raise SettingsError(f"{err.sentence}; a page with a slider ends in .html") from err
    both = [*options.inputs, *([options.high] if options.high else [])]
    if any(_same_file(path, one) for one in both):
        raise SettingsError(f"-o {shown(path)} is one of the pictures to compare; give another name")
    if os.path.lexists(path) and not is_folder(path) and not options.overwrite:
        raise SettingsError(f"{shown(path)} exists already; give --overwrite, or another -o")
    check_place(path, options.page_bytes // 4)


def _same_file(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


# -------------------------------------------------------------------------------------------------------------- scenes


def _pictures_scene(
    options: CompareOptions, advance: Callable[[int, int, str], None], on_note: Callable[[str], None]
) -> Scene:
    labels = _labels(options, labels_of(options.inputs))
    pictures = []
    for number, (path, label) in enumerate(zip(options.inputs, labels, strict=True)):
        advance(number, len(labels), path.name)
        try:
            pictures.append((label, read_shown(path, on_note)))
        except PictureError as err:
            raise NothingToDoError(str(err)) from err
    return together(pictures, enlarging=options.enlarging)


def _models_scenes(
    options: CompareOptions,
    advance: Callable[[int, int, str], None],
    on_note: Callable[[str], None],
    on_failure: Callable[[str], None],
) -> Iterator[Scene]:
    """One scene per input: itself (if requested), bicubic, the models, and the original if there is one."""
    scale = shared_scale(options.models, options.scale)
    originals = _originals(options, scale)
    loaded = load_upscalers(options.models, scale, options.engine, taken=(LOW, BICUBIC, ORIGINAL))
    upscalers = _varied(loaded, options)
    for number, (path, name) in enumerate(zip(options.inputs, labels_of(options.inputs), strict=True)):
        advance(number, len(options.inputs), path.name)
        original = originals.get(path)
        if original is None and options.high_dir is not None:
            on_note(f"there is no original of {shown(path.name)} in {shown(options.high_dir)}")
        try:
            low = read_shown(path, on_note)
            high = None if original is None else read_shown(original, on_note)
        except PictureError as err:
            on_failure(str(err))
            continue
        yield _models_scene(options, name, low, upscalers, scale, high)


def _varied(upscalers: dict[str, Upscaler], options: CompareOptions) -> dict[str, Upscaler]:
    """Each model once per seed and strength. Raises `SettingsError` if no model draws from noise."""
    given = {"--variants": options.variants > 1, "--variation": options.variations, "--seed": options.seed}
    asked = next((name for name, is_given in given.items() if is_given), "")
    seeds = range(options.seed, options.seed + options.variants)
    found = variants(upscalers, tuple(seeds), options.variations, asked=asked)
    return {name: one.upscaler for name, one in found.items()}


def _models_scene(
    options: CompareOptions,
    name: str,
    low: Pixels,
    upscalers: dict[str, Upscaler],
    scale: int,
    high: Pixels | None,
) -> Scene:
    height, width = (side * scale for side in low.shape[:2])
    views: list[View] = [Still(LOW, f"×{scale} nearest", low, scale, scale, "nearest")] * options.show_low
    views += [Still(BICUBIC, f"×{scale}", low, scale, scale)]
    views += [Enlarged(label, f"×{scale}, {one.compute.precision}", low, one) for label, one in upscalers.items()]
    if high is not None:
        if not all(0 <= a - b < scale for a, b in zip(high.shape[:2], (height, width), strict=True)):
            raise SettingsError(
                f"the original of {shown(name)} is {high.shape[1]}x{high.shape[0]} px; for ×{scale} it should be "
                f"{width}x{height} px"
            )
        views += [Still(ORIGINAL, "", high)]
    labels = _labels(options, [view.label for view in views], wanted=len(_columns(options, list(upscalers))))
    return Scene(name, width, height, tuple(map(_relabelled, views, labels)))


def _columns(options: CompareOptions, models: Sequence[str]) -> list[str]:
    has_original = options.high is not None or options.high_dir is not None
    return [*([LOW] * options.show_low), BICUBIC, *models, *([ORIGINAL] * has_original)]


def _labels(options: CompareOptions, labels: list[str], wanted: int | None = None) -> list[str]:
    """The given labels, of which there must be one for each column (`wanted`), or default ones."""
    if not options.labels:
        return labels
    wanted = len(labels) if wanted is None else wanted
    if len(options.labels) != wanted or len(set(options.labels)) != wanted:
        names = counted(len(set(options.labels)), "different name")
        raise SettingsError(f"--labels has {names} for {counted(wanted, 'column')}: {', '.join(labels)}")
    return list(options.labels[: len(labels)])


def _relabelled(view: View, label: str) -> View:
    if isinstance(view, Still):
        return Still(label, view.about, view.pixels, view.across, view.down, view.enlarging)
    assert isinstance(view, Enlarged)
    return Enlarged(label, view.about, view.low, view.upscaler)


def _originals(options: CompareOptions, scale: int) -> dict[Path, Path]:
    """Originals of the inputs: same name except for the extension, or without the `x4` of a low picture's name."""
    if options.high is not None:
        return {options.inputs[0]: options.high}
    if options.high_dir is None:
        return {}
    if not options.high_dir.is_dir():
        raise SettingsError(f"--hr-dir {shown(options.high_dir)} is not a folder")
    there = {path.stem: path for path in sorted(options.high_dir.iterdir()) if path.suffix.lower() in PICTURE_SUFFIXES}
    found = {path: there.get(path.stem) or there.get(path.stem.removesuffix(f"x{scale}")) for path in options.inputs}
    return {path: original for path, original in found.items() if original is not None}


# -------------------------------------------------------------------------------------------------------------- places


def _judged(scene: Scene) -> list[int]:
    """The views that decide where to look: the models if there are several, otherwise all but unsmoothed pixels."""
    models = [i for i, view in enumerate(scene.views) if isinstance(view, Enlarged)]
    smooth = [i for i, view in enumerate(scene.views) if not (isinstance(view, Still) and view.enlarging == "nearest")]
    return models if len(models) > 1 else smooth if len(smooth) > 1 else list(range(len(scene.views)))


def _placed(scene: Scene, options: CompareOptions, count: int, side_px: int) -> tuple[Scene, list[Area]]:
    """The crops to show, and the scene, whose networks have been run on the whole picture if that was cheapest."""
    if options.at:
        return scene, [spot.box(scene, side_px) for spot in options.at]
    judged = _judged(scene)
    networks = [view for view in scene.views if isinstance(view, Enlarged)]
    tries = max(_MIN_TRIES, _TRIES * count)
    if networks:
        part_px = side_px // networks[0].upscaler.scale + 2 * max(one.upscaler.chain.halo_px for one in networks)
        if networks[0].low.size // 3 > tries * part_px**2:
            boxes = most_different(scene, [scene.guide], tries, side_px)
            differences = {box: difference(scene, [scene.views[i].crop(box) for i in judged]) for box in boxes}
            return scene, sorted(boxes, key=lambda box: -differences[box])[:count]
        scene = scene.settled()
    return scene, most_different(scene, [scene.views[i] for i in judged], count, side_px)


# ------------------------------------------------------------------------------------------------------------- results


def _sheet(options: CompareOptions, scenes: Iterator[Scene]) -> str | None:
    columns: dict[str, str] = {}
    rows: list[SheetRow] = []
    several = len(options.inputs) > 1 and bool(options.models)
    count = options.crops or (1 if several else _SHEET_CROPS)
    side_px = options.crop_px or _SHEET_CROP_PX
    for scene in scenes:
        placed, boxes = _placed(scene, options, count, side_px)
        rows += [row_of(placed, box) for box in boxes]
        columns.update({view.label: view.about for view in placed.views})
    if not rows:
        return None
    footer = f"srgan compare, {options.zoom_percent} %, {'bicubic' if options.smooth else 'pixels as they are'}"
    picture = draw_sheet(columns, rows, zoom_percent=options.zoom_percent, smooth=options.smooth, footer=footer)
    height, width = picture.shape[:2]
    header, write = _header(width, height), WriteOptions()
    output = decide(options.output, header, write, width=width, height=height)
    write_picture(options.output, picture, header, output, write)
    where = f"at the place{'s' * (len(rows) != 1)} given" if options.at else "where they differ most"
    return (
        f"{counted(len(rows), 'crop')} of {side_px} px {where}, {counted(len(columns), 'column')}, {width}x{height} px"
    )


def _header(width: int, height: int) -> Header:
    return Header(width, height, 3, 8, "png")


def _page(options: CompareOptions, scenes: Iterator[Scene]) -> str | None:
    exhibits = [exhibit for scene in scenes for exhibit in _exhibits(scene, options)]
    if not exhibits:
        return None
    names = [view.label for view in exhibits[0].scene.views]
    title = exhibits[0].scene.name if options.models and len(options.inputs) == 1 else " | ".join(names)
    html, summary = build_page(title, exhibits, budget_bytes=options.page_bytes)
    write_text(options.output, html)
    return summary


def _exhibits(scene: Scene, options: CompareOptions) -> Iterator[Exhibit]:
    """The whole scene with places to jump to; or parts, if requested or if the whole would take too long to compute."""
    # Before the networks become pictures: the kind of a view decides where to look, and which views are shown first.
    judged = _judged(scene)
    networks = [i for i, view in enumerate(scene.views) if isinstance(view, Enlarged)]
    pair = (networks[0] - 1, networks[0]) if networks else (0, 1)  # bicubic comes before the models
    count = options.crops or _PAGE_CROPS
    too_large = len(networks) * scene.width * scene.height * len(options.inputs) > _PAGE_PIXELS
    if too_large or options.crop_px is not None:
        scene, boxes = _placed(scene, options, count, options.crop_px or _PAGE_CROP_PX)
        yield from (Exhibit(scene.part(box), pair=pair) for box in boxes)
        return
    whole = scene.settled()
    boxes = [spot.box(whole, _PLACE_PX) for spot in options.at]
    if not boxes:
        boxes = most_different(whole, [whole.views[i] for i in judged], count, _PLACE_PX)
    yield Exhibit(whole, tuple(boxes), pair)
