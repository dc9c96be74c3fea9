"""The pictures to compare: originals in a folder, and their low pictures, given or made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from srgan_cli.config import DEFAULT_MAX_PIXELS
from srgan_cli.dataset.folders import is_same_folder
from srgan_cli.dataset.twins import Twins
from srgan_cli.errors import NothingToDoError, PictureError, SettingsError, UnreadablePictureError, shown
from srgan_cli.evaluation.evaluate import NamedPair
from srgan_cli.imaging.formats import format_of_suffix
from srgan_cli.imaging.image import Pixels
from srgan_cli.imaging.reading import read_image
from srgan_cli.imaging.rgb import as_8_bit
from srgan_cli.training_data_config import DegradationSettings

# `compare` needs SSIM's window of 11 px after cutting off the border, which is as wide as the scale.
_SSIM_PX = 11

# Random wear is drawn from this seed and the picture's number, the same in each run.
_SEED = 0
_BICUBIC = DegradationSettings()


@dataclass(frozen=True)
class PairFiles:
    """An original and its low picture, if given. `name` is its path below the folder."""

    name: str
    high: Path
    low: Path | None = None


@dataclass(frozen=True)
class FoundPairs:
    """The pictures to compare, and those whose low picture is missing (one sentence each)."""

    files: tuple[PairFiles, ...]
    missing: tuple[str, ...] = ()


def find_pairs(high_dir: Path, low_dir: Path | None, scale: int) -> FoundPairs:
    """All pictures below `high_dir`, sorted by name, with those below `low_dir` that match by name.

    `dataset.twins` decides which match; if both are in one folder, low pictures are not used as originals. Raises
    `SettingsError` if it is not a folder, `NothingToDoError` if nothing is found or matches.
    """
    originals = _pictures(high_dir, "--hr-dir")
    if low_dir is None:
        return FoundPairs(tuple(PairFiles(name, path) for name, path in originals.items()))
    together = is_same_folder(high_dir, low_dir)
    found = originals if together else _pictures(low_dir, "--lr-dir")
    small = {_stem(name): path for name, path in found.items()}
    twins = Twins(small.items(), scale)
    files, missing = [], []
    lows = {path: twins.of(_stem(name), path) for name, path in originals.items()}
    used = {low for found in lows.values() for low in found}
    for name, path in originals.items():
        if len(lows[path]) == 1:
            files.append(PairFiles(name, path, lows[path][0]))
        elif lows[path]:
            missing.append(f"{name}: {len(lows[path])} pictures in {shown(low_dir)} match its name; keep only one")
        elif path not in used:
            missing.append(f"{name}: there is no picture of this name in {shown(low_dir)}")
    if not files and together:
        raise SettingsError(
            f"--hr-dir and --lr-dir are the same folder, {shown(high_dir)}, and no two names in it are those of an "
            f"original and its small picture, such as a.png and ax{scale}.png; give another folder to --lr-dir, or "
            "leave it out: then the small pictures are made from the originals"
        )
    if not files:
        raise NothingToDoError(
            f"no picture in {shown(low_dir)} has the name of one in {shown(high_dir)}: there are {_some(small)} there, "
            f"and {_some(map(_stem, originals))} here. Names must agree except for the extension and a suffix: "
            f"a.png and ax{scale}.png, a_LR.png or a_bicLRx{scale}.png"
        )
    return FoundPairs(tuple(files), tuple(missing))


def _pictures(folder: Path, option: str) -> dict[str, Path]:
    """Names and paths of all files below that look like pictures, without hidden ones."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise SettingsError(f"{option} {shown(folder)} {what}; give a folder of pictures")
    found = {}
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(root, name)
            if not name.startswith(".") and format_of_suffix(path.suffix) is not None:
                found[path.relative_to(folder).as_posix()] = path
    if not found:
        raise NothingToDoError(f"there are no pictures in {shown(folder)}")
    return dict(sorted(found.items()))


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _some(names: Iterable[str]) -> str:
    names = [f"{name!r}" for name in names]
    return ", ".join(names[:2]) + (", …" if len(names) > 2 else "")


def read_pairs(
    files: Iterable[PairFiles],
    *,
    scale: int,
    degradation: DegradationSettings = _BICUBIC,
    grey: bool = False,
    on_failure: Callable[[str], None],
) -> Iterator[NamedPair]:
    """Names, low and high pictures, one at a time. Pictures that cannot be used are reported to `on_failure` as a
    sentence.

    Originals are cropped, below and on the right, to a multiple of the scale. If there is no low picture, it is made
    from the cropped original: with MATLAB's bicubic, as is usual, or with training's degradation, with random numbers
    that depend on the picture's position in `files`, the same in each run; with `grey` both are then grey. Raises
    `WeightsError` if a learned wear's file is damaged.
    """
    for number, one in enumerate(files):
        try:
            yield _pair(one, number, scale, degradation, grey=grey)
        except PictureError as err:
            on_failure(str(err))


def _made(
    high: Pixels, number: int, scale: int, degradation: DegradationSettings, *, grey: bool
) -> tuple[Pixels, Pixels]:
    """A low picture, and the original that it is compared with."""
    from srgan_cli.dataset.low_pictures import low_picture

    if not grey:
        return low_picture(high, degradation, scale, _SEED, number), high
    high = _without_colours(high)
    return _without_colours(low_picture(high, degradation, scale, _SEED, number)), high


def _without_colours(pixels: Pixels) -> Pixels:
    """(H, W, 1 or 3) -> (H, W, 1)."""
    from srgan_cli.dataset.pictures import without_colours

    return pixels if pixels.shape[2] == 1 else without_colours(pixels)[..., :1]


def _pair(one: PairFiles, number: int, scale: int, degradation: DegradationSettings, *, grey: bool) -> NamedPair:
    whole = read_rgb(one.high)
    height, width = (side // scale * scale for side in whole.shape[:2])
    least = -(-(_SSIM_PX + 2 * scale) // scale) * scale
    if min(height, width) < least:
        raise UnreadablePictureError(
            f"{shown(one.high)} is {_size(whole)}, too small to be compared at ×{scale}: it must have at least "
            f"{least}x{least} px"
        )
    high = whole[:height, :width]
    if one.low is None:
        return one.name, *_made(high, number, scale, degradation, grey=grey)
    low = read_rgb(one.low)
    if low.shape[:2] != (height // scale, width // scale):
        raise UnreadablePictureError(
            f"{shown(one.low)} is {_size(low)}; for ×{scale} and the {_size(whole)} of {shown(one.high)} it should be "
            f"{width // scale}x{height // scale} px{_hint(low, whole)}"
        )
    return one.name, low, high


def _hint(low: Pixels, high: Pixels) -> str:
    """The scale at which the two would be a pair, if any."""
    scale = max(1, round(high.shape[1] / low.shape[1]))
    is_pair = scale > 1 and low.shape[:2] == tuple(side // scale for side in high.shape[:2])
    return f" (these are a pair for --scale {scale})" if is_pair else ""


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]} px"


def read_rgb(path: Path) -> Pixels:
    """A picture for comparison: (H, W, 1 or 3) of uint8, upright.

    16 bits are rounded to 8. Colour profiles are not applied: values are compared, and a result has its input's
    profile. Fully opaque alpha is dropped. Raises `UnreadablePictureError`, also for any other transparency.
    """
    pixels = as_8_bit(read_image(path, max_pixels=DEFAULT_MAX_PIXELS).pixels)
    if pixels.shape[2] in (2, 4):
        if pixels[..., -1].min() < 255:
            raise UnreadablePictureError(f"{shown(path)} has transparent parts, which cannot be compared; flatten it")
        pixels = pixels[..., :-1]
    return pixels
