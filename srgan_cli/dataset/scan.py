"""Which pictures are learned from, which are held out, and which are left out and why.

Everything is decided before the first step. Each file is examined once: its header, and its pixels at reduced size. The
results are stored in the cache folder, so that the same command does not examine it again.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TypeAlias

from srgan_cli import stored
from srgan_cli.dataset import alignment
from srgan_cli.dataset.folders import PictureFile, Refusal, RefusalKind, files_of, files_under, folder_of
from srgan_cli.dataset.pictures import Facts, examine, in_order, read_pixels
from srgan_cli.errors import NothingToDoError, PictureError, TrainingError, shown
from srgan_cli.files import cache_folder, publish_text
from srgan_cli.training_data_config import DataSettings
from srgan_cli.wording import are

Advance: TypeAlias = Callable[[int, int], None]  # done, total

# Scores exclude a border as wide as the scale, and SSIM's window is 11 px wide.
_MIN_JUDGED_PX = 16
_ENOUGH_HELD, _EACH_HELD = 4, 12
_MIN_CROP_PX = 8  # as in the settings
_MEMORY = "scan-2.json"
_MAX_REMEMBERED = 200_000
_PLAIN_STD = 1.0  # a picture with a smaller standard deviation (in grey levels) counts as a single colour
_MAX_ALIGNED = 8  # number of pairs that are decoded to check their alignment


@dataclass(frozen=True)
class Picture:
    """A picture to use. Its sides are in px, upright; `low` is its low twin, in paired data."""

    path: Path
    width: int
    height: int
    low: Path | None = None


@dataclass(frozen=True)
class Scan:
    """The pictures found. `train` and `val` share no picture; `split` says in one sentence how `val` was chosen."""

    train: tuple[Picture, ...]
    val: tuple[Picture, ...]
    refused: tuple[Refusal, ...]
    split: str
    notes: tuple[str, ...] = ()  # notes about the pictures for the user
    unlabelled: tuple[Picture, ...] = ()  # low pictures without an original


def scan(settings: DataSettings, *, scale: int, crop_px: int, advance: Advance | None = None) -> Scan:
    """Examine all pictures. `crop_px` is the largest crop of any phase.

    Both lists are in the order of the folders and of the names in them, so that a copy of the folders elsewhere gives
    the same training. Raises `NothingToDoError` if a folder is missing or contains no pictures, or if nothing is left
    to learn from, and `SettingsError` if the folders of a paired set do not match.
    """
    files, judged, refused = files_of(settings, scale)
    facts = _examine_all(_paths([*files, *judged]), cache_folder_of(settings), advance)
    sieve = _Sieve(settings, scale, facts)
    # Held-out pictures are examined first: a picture in both sets is left out of training.
    val, not_judged = sieve.sifted(judged, _MIN_JUDGED_PX + 2 * scale, strict=False)
    train, not_learned = sieve.sifted(files, crop_px, strict=True)
    if not train:
        raise NothingToDoError(_nothing_left("to learn from", [*refused, *not_learned], sieve.sizes(files), scale))
    if settings.val_dir and not val:
        raise NothingToDoError(_nothing_left("to validate with", [*refused, *not_judged], [], scale))
    if settings.val_dir:
        split = f"those of {shown(settings.val_dir)}"
    else:
        train, val, split = _split(train, settings)
    pictures = _pictures(train)
    return Scan(pictures, _pictures(val), (*refused, *not_judged, *not_learned), split, _shift_notes(pictures, scale))


def _shift_notes(pictures: Sequence[Picture], scale: int) -> tuple[str, ...]:
    """Notes on whether a sample of paired pictures is aligned."""
    paired = [picture for picture in pictures if picture.low is not None]
    sample = paired[:: max(1, len(paired) // _MAX_ALIGNED)][:_MAX_ALIGNED]
    shifts = []
    for picture in sample:
        assert picture.low is not None
        with suppress(PictureError):  # it is read again later, and reported then
            low, high = read_pixels(picture.low), read_pixels(picture.path)
            high = high[: low.shape[0] * scale, : low.shape[1] * scale]
            found = alignment.shift(low, high)
            shifts += [] if found is None else [(shown(picture.path), found)]
    said = alignment.sentence(shifts, len(sample))
    return () if said is None else (said,)


def scan_unlabelled(
    settings: DataSettings,
    folders: Sequence[str],
    *,
    min_px: int,
    sharp: Sequence[Picture] | None = None,
    advance: Advance | None = None,
) -> tuple[tuple[Picture, ...], tuple[Refusal, ...]]:
    """Low pictures without an original: all that can be read and are large enough, each once, and those left out.

    Flat and strongly compressed ones are not refused. When wear is learned, `sharp` are the pictures without wear; they
    are left out here, and so are those of a single colour, which show no wear, for any `min_std`. Raises
    `NothingToDoError` as `scan` does.
    """
    files, refused = files_under(folders)
    known = _paths([*files, *(PictureFile(one.path, "") for one in sharp or ())])
    sieve = _Sieve(settings, 1, _examine_all(known, cache_folder_of(settings), advance))
    sieve.keep_out(one.path for one in sharp or ())
    kept, others = sieve.sifted(files, min_px, strict=False, min_std=0.0 if sharp is None else _PLAIN_STD)
    if not kept:
        option = "--unlabelled-dir" if sharp is None else "--unpaired-lr-dir"
        raise NothingToDoError(f"no pictures of {option} are left to learn from: {reasons_of([*refused, *others])}")
    return _pictures(kept), (*refused, *others)


def cache_folder_of(settings: DataSettings) -> Path:
    """The folder for data that can be recomputed. Raises `TrainingError` if there is none."""
    if settings.cache_dir:
        return folder_of(settings.cache_dir)
    try:
        return cache_folder() / "training"
    except RuntimeError as err:
        raise TrainingError(
            "there is no home directory for the cache of decoded pictures; name a folder for it with "
            "--set data.cache_dir=FOLDER"
        ) from err


# --------------------------------------------------------------------------------------------------------- each picture


def _paths(files: Iterable[PictureFile]) -> list[Path]:
    return list(dict.fromkeys(path for file in files for path in (file.path, file.low) if path is not None))


def _examine_all(paths: Sequence[Path], folder: Path, advance: Advance | None) -> dict[Path, Facts | str]:
    """For each picture its facts, or the reason why it cannot be read."""
    memory = _Memory(folder / _MEMORY)
    result: dict[Path, Facts | str] = {}
    try:
        for path, facts in zip(paths, in_order(lambda path: _facts(path, memory), paths), strict=True):
            result[path] = facts
            if advance is not None:
                advance(len(result), len(paths))
    finally:
        memory.save()  # also on Ctrl-C, since a million pictures take hours
    return result


def _facts(path: Path, memory: _Memory) -> Facts | str:
    key = identity(path)
    known = memory.get(key)
    if known is not None:
        return known
    try:
        facts = examine(path)
    except PictureError as err:  # not stored: a missing package or permission may be fixed
        return str(err)
    memory.put(key, facts)
    return facts


def identity(path: Path) -> str:
    """Identifies a file's content without reading it: its path, size and modification time."""
    with suppress(OSError):
        found = path.stat()
        return f"{os.path.realpath(path)}|{found.st_size}|{found.st_mtime_ns}"
    return f"{os.path.realpath(path)}|missing"


class _Memory:
    """Facts by identity, stored in a file. Best effort: losing it only costs time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, list[object]] = {}
        self._changed = False
        with suppress(OSError, ValueError):
            loaded = stored.json_of(stored.read_bytes(path))
            self._entries = loaded if isinstance(loaded, dict) else {}

    def get(self, key: str) -> Facts | None:
        with suppress(KeyError, TypeError, ValueError):
            width, height, digest, std, quality = self._entries[key]
            quality = None if quality is None else stored.whole(quality)
            int(stored.text(digest), 16)
            return Facts(stored.whole(width, 1), stored.whole(height, 1), str(digest), stored.real(std), quality)
        return None

    def put(self, key: str, facts: Facts) -> None:
        self._entries[key] = list(astuple(facts))
        self._changed = True

    def save(self) -> None:
        if not self._changed:
            return
        newest = dict(list(self._entries.items())[-_MAX_REMEMBERED:])
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            publish_text(self._path, json.dumps(newest), own=True)


# ---------------------------------------------------------------------------------------------------------------- sieve


@dataclass(frozen=True)
class _Kept:
    picture: Picture
    digest: str  # by the high picture, so that all of its versions are on the same side of the split


class _Sieve:
    """Decides picture by picture, and remembers the accepted ones."""

    def __init__(self, settings: DataSettings, scale: int, facts: Mapping[Path, Facts | str]) -> None:
        self._settings, self._scale, self._facts = settings, scale, facts
        self._first: dict[tuple[str, ...], Path] = {}
        self._judged: set[Path] = set()

    def keep_out(self, paths: Iterable[Path]) -> None:
        """From now on, leave these and their duplicates out."""
        for path in paths:
            if isinstance(facts := self._facts[path], Facts):
                self._first.setdefault((facts.digest,), path)

    def sifted(
        self, files: Iterable[PictureFile], min_px: int, *, strict: bool, min_std: float = 0.0
    ) -> tuple[list[_Kept], list[Refusal]]:
        """The usable ones of `files`, and the others.

        `strict` is for training: flat and strongly compressed pictures are left out too, and so are duplicates of
        pictures accepted before, in another call or, in paired data, with the same low picture. `min_std` leaves out
        flat ones in any case.
        """
        kept: list[_Kept] = []
        refused: list[Refusal] = []
        for file in files:
            facts = self._facts[file.path]
            refusal = self._unfit(file, facts, min_px) if isinstance(facts, Facts) else Refusal(file.path, facts)
            if refusal is None and strict and isinstance(facts, Facts):
                refusal = self._compressed(file, facts)
            if refusal is None and isinstance(facts, Facts):
                refusal = _flat(file, facts, self._settings.min_std if strict else min_std)
            if refusal is not None:
                refused.append(refusal)
            elif isinstance(facts, Facts):
                for key in self._keys(file)[: 1 if strict else 2]:
                    self._first.setdefault(key, file.path)
                self._judged.update([] if strict else [file.path])
                kept.append(_Kept(Picture(file.path, facts.width, facts.height, file.low), facts.digest))
        return kept, refused

    def sizes(self, files: Iterable[PictureFile]) -> list[int]:
        """The shorter sides of those that can be read, in px."""
        known = (self._facts[file.path] for file in files)
        return [min(facts.width, facts.height) for facts in known if isinstance(facts, Facts)]

    def _unfit(self, file: PictureFile, facts: Facts, min_px: int) -> Refusal | None:
        if min(facts.width, facts.height) < min_px:
            reason = f"{facts.width}×{facts.height} px, smaller than the {min_px} px that are needed each way"
            return Refusal(file.path, reason, "too small")
        if file.low is not None and (misfit := self._misfit(facts, file.low)) is not None:
            return Refusal(file.path, misfit, "unpaired")
        first = next((self._first[key] for key in self._keys(file) if key in self._first), None)
        if first is None:
            return None
        held_out = ", which is held out for validation" if first in self._judged else ""
        return Refusal(file.path, f"the same picture as {shown(first)}{held_out}", "duplicate")

    def _misfit(self, facts: Facts, low: Path) -> str | None:
        """Why these two are not a pair. Up to scale - 1 extra px on the right and at the bottom are harmless."""
        small = self._facts[low]
        if isinstance(small, str):
            return f"its small picture {shown(low)} cannot be used: {small}"
        if (facts.width // self._scale, facts.height // self._scale) == (small.width, small.height):
            return None
        sides = f"{facts.width}×{facts.height} px"
        return f"{sides}, not {self._scale} times the {small.width}×{small.height} px of its small picture"

    def _compressed(self, file: PictureFile, facts: Facts) -> Refusal | None:
        quality, least = facts.jpeg_quality, self._settings.min_jpeg_quality
        if quality is None or quality >= least:
            return None
        return Refusal(file.path, f"compressed as JPEG of quality {quality}, below {least}", "heavily compressed")

    def _keys(self, file: PictureFile) -> list[tuple[str, ...]]:
        """Equal for equal pictures: with the low twin, of which a high picture may have several, and without."""
        both = [self._facts[path] for path in (file.path, file.low) if path is not None]
        digests = tuple(facts.digest for facts in both if isinstance(facts, Facts))
        return [digests, digests[:1]]


def _flat(file: PictureFile, facts: Facts, min_std: float) -> Refusal | None:
    if facts.std >= min_std:
        return None
    reason = f"nearly flat: the standard deviation of its grey levels is {facts.std:.1f} of 255"
    return Refusal(file.path, reason, "nearly flat")


def _pictures(kept: Iterable[_Kept]) -> tuple[Picture, ...]:
    return tuple(one.picture for one in kept)


_WAYS_OUT: Mapping[RefusalKind, str] = {
    "heavily compressed": "; --set data.min_jpeg_quality=0 includes them anyway",
    "nearly flat": "; --set data.min_std=0 includes them anyway",
}


def _nothing_left(what_for: str, refused: Sequence[Refusal], sizes_px: Sequence[int], scale: int) -> str:
    """The message if every picture was left out: the most frequent reasons, and what to do."""
    commonest = Counter(one.kind for one in refused).most_common(1)[0][0]
    way_out = _WAYS_OUT.get(commonest, "")
    largest = max(sizes_px, default=0) // scale * scale
    if commonest == "too small" and largest >= _MIN_CROP_PX:
        way_out = f"; a crop of {largest} px would fit into the largest picture (--crop {largest})"
    return f"no pictures are left {what_for}: {reasons_of(refused)}{way_out}"


def reasons_of(refused: Sequence[Refusal]) -> str:
    """Why pictures (at least one) were left out: how many for each reason, and an example of the most frequent one."""
    counts = Counter(one.kind for one in refused).most_common()
    reasons = ", ".join(f"{count} {kind}" for kind, count in counts)
    example = next(one for one in refused if one.kind == counts[0][0])
    return f"{reasons}, such as {shown(example.path)}: {example.reason}"


# ---------------------------------------------------------------------------------------------------------------- split


def _split(kept: Sequence[_Kept], settings: DataSettings) -> tuple[list[_Kept], list[_Kept], str]:
    """Pictures to learn from, and pictures to validate with, chosen by content, so that adding others does not change
    the choice.

    A digest is as good as a random number. Pictures with a digest below `val_fraction` are held out; but at least
    enough that the score does not depend on a single picture (one of each 12 pictures, up to 4; always one), and at
    most `val_max`. At least one is left to learn from.
    """
    digests = sorted({one.digest for one in kept})
    if settings.val_fraction == 0:
        return list(kept), [], "none is held out, since val_fraction is 0"
    if len(digests) == 1:
        return list(kept), [], "none is held out, since there is only one"
    below = sum(int(digest, 16) < settings.val_fraction * 16 ** len(digest) for digest in digests)
    enough = max(1, min(_ENOUGH_HELD, len(digests) // _EACH_HELD))
    held = set(digests[: min(max(below, enough), settings.val_max, len(digests) - 1)])
    train = [one for one in kept if one.digest not in held]
    val = [one for one in kept if one.digest in held]
    return train, val, f"{len(val)} of {len(kept)} {are(len(val))} held out, chosen by a hash of their pixels"
