"""Pictures decoded once into one memory-mapped file, at every size that crops are taken from."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from srgan_cli.dataset.pictures import Bytes, in_order, read_pixels
from srgan_cli.dataset.scan import Advance, Picture, cache_folder_of, identity
from srgan_cli.errors import TrainingError, UnreadablePictureError, shown
from srgan_cli.files import Lock, lock, part_name, publishing, stale_parts
from srgan_cli.training_data_config import DataSettings
from srgan_cli.wording import size

_VERSION = 2  # version of the pixels in a cache: increase it when decoding or downscaling changes
_NAME = re.compile(r"[0-9a-f]{32}\.(pixels|taught)")  # the latter: see `taught`
_KEPT_S = 30 * 24 * 3600.0  # a cache that has not been opened for this long is removed
_LOOK_AGAIN_S = 0.5


@dataclass(frozen=True)
class _Plane:
    """One picture at one level: where its (height, width, 3) bytes begin in the file."""

    offset: int
    height: int
    width: int

    @property
    def end(self) -> int:
        return self.offset + self.height * self.width * 3

    def of(self, pixels: npt.NDArray[np.uint8]) -> Bytes:
        return pixels[self.offset : self.end].reshape(self.height, self.width, 3)


@dataclass(frozen=True)
class _Entry:
    """The cache's data for one picture: the high one at each level that is large enough, and its low twin."""

    picture: Picture
    highs: tuple[_Plane, ...]
    low: _Plane | None


class Cache:
    """All pictures' pixels in a memory-mapped file: nothing is read before it is used, and what has been read stays in
    the system's cache as long as there is memory.

    All arrays are (H, W, 3) uint8 and read-only. `crop_px` is the largest crop that every level allows.
    """

    def __init__(self, path: Path, entries: Sequence[_Entry], crop_px: int) -> None:
        self.path = path
        self.crop_px = crop_px
        self._entries = entries
        self._pixels = np.memmap(path, np.uint8, "r").view(np.ndarray)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._entries)

    @property
    def paired(self) -> bool:
        return self._entries[0].low is not None

    def levels(self, index: int) -> int:
        """Number of sizes at which picture `index` is available: 1 in paired data."""
        return len(self._entries[index].highs)

    def high(self, index: int, level: int = 0) -> Bytes:
        """Picture `index` at that level; level 0 is its own size if the first of the configured levels is 1."""
        return self._entries[index].highs[level].of(self._pixels)

    def low(self, index: int) -> Bytes:
        """The low twin of picture `index`, in paired data."""
        plane = self._entries[index].low
        assert plane is not None, "the data are not paired"
        return plane.of(self._pixels)


def build_cache(
    pictures: Sequence[Picture],
    settings: DataSettings,
    *,
    scale: int,
    crop_px: int,
    advance: Advance | None = None,
) -> Cache:
    """The pixels of all pictures at all levels; decoded now, or found from an earlier run.

    A level is the picture downscaled by Pillow's antialiased bicubic filter, in the file's gamma as is usual in this
    field; levels smaller than `crop_px` are left out. Paired pictures have one level, cropped to `scale` times the low
    one. A second process that needs the same cache waits until the first one has built it. A cache unused for a month
    is removed.

    Raises `TrainingError` if the folder is not writable or the disk is too full (before anything is decoded, if that
    can be determined), and `UnreadablePictureError` if a picture has changed since the scan.
    """
    assert pictures, "the scan has made sure that there are some"
    entries = _layout(pictures, settings.levels, scale, crop_px)
    folder = cache_folder_of(settings)
    path = folder / f"{_key(entries)}.pixels"
    try:
        if not _is_whole(path, entries):
            folder.mkdir(parents=True, exist_ok=True)
            remove_old(folder)
            _make(path, entries, advance or (lambda done, total: None))
        with contextlib.suppress(OSError):  # possibly owned by another user, but readable
            os.utime(path)  # mark it as used today
        return Cache(path, entries, crop_px)
    except OSError as err:
        raise TrainingError(_why(err, folder, _bytes(entries))) from err


def _layout(pictures: Sequence[Picture], levels: Sequence[float], scale: int, crop_px: int) -> list[_Entry]:
    """The positions of everything in the file, which depend only on the sizes."""
    end = 0

    def plane(height: int, width: int) -> _Plane:
        nonlocal end
        result = _Plane(end, height, width)
        end = result.end
        return result

    entries = []
    for picture in pictures:
        width, height = picture.width, picture.height
        if picture.low is not None:
            width, height = width // scale, height // scale
            entries.append(_Entry(picture, (plane(height * scale, width * scale),), plane(height, width)))
            continue
        sizes = ((round(height * level), round(width * level)) for level in levels)
        large_enough = [size for size in sizes if min(size) >= crop_px] or [(height, width)]
        entries.append(_Entry(picture, tuple(plane(*size) for size in large_enough), None))
    return entries


def _key(entries: Sequence[_Entry]) -> str:
    """Equal for caches of the same unchanged files in the same layout."""
    digest = hashlib.blake2b(f"srgan cache {_VERSION}".encode(), digest_size=16)
    for entry in entries:
        files = [identity(path) for path in (entry.picture.path, entry.picture.low) if path is not None]
        digest.update(repr((files, entry.highs, entry.low)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _bytes(entries: Sequence[_Entry]) -> int:
    last = entries[-1]
    return (last.low or last.highs[-1]).end


def _is_whole(path: Path, entries: Sequence[_Entry]) -> bool:
    """Check the size. A file gets its name only when complete, so this is a formality."""
    return path.is_file() and path.stat().st_size == _bytes(entries)


def _make(path: Path, entries: Sequence[_Entry], advance: Advance) -> None:
    with alone(path, waiting=lambda: advance(0, len(entries))):
        if _is_whole(path, entries):  # another process has built it while this one waited
            return
        _remove_parts_of(path)
        if shutil.disk_usage(path.parent).free < _bytes(entries):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with publishing(path, own=True) as file:
            for done, planes in enumerate(in_order(_render, entries), 1):
                for plane in planes:
                    file.write(plane.data)
                advance(done, len(entries))


def alone(path: Path, *, waiting: Callable[[], None]) -> Lock:
    """A lock for creating `path`, once no other process holds it. It ends with the process, for any reason."""
    while (held := lock(_lock_path(path))) is None:
        waiting()
        time.sleep(_LOOK_AGAIN_S)
    return held


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")


def _remove_parts_of(path: Path) -> None:
    """Remove what killed processes have left of a cache whose lock is held."""
    for part, name in stale_parts(path.parent).items():
        if name == part_name(path):
            with contextlib.suppress(OSError):
                part.unlink()


def _render(entry: _Entry) -> list[Bytes]:
    """One picture's planes, in file order."""
    picture = entry.picture
    pixels = unchanged(picture.path, (picture.height, picture.width))
    if picture.low is not None and entry.low is not None:
        high = entry.highs[0]
        low = unchanged(picture.low, (entry.low.height, entry.low.width))
        return [np.ascontiguousarray(pixels[: high.height, : high.width]), low]
    return [_shrunk(pixels, plane.height, plane.width) for plane in entry.highs]


def unchanged(path: Path, size: tuple[int, int]) -> Bytes:
    """The pixels of a picture that was examined before, (height, width, 3).

    Raises `UnreadablePictureError` if it is no longer readable, or now has another size.
    """
    try:
        pixels = read_pixels(path)
    except UnreadablePictureError as err:
        raise UnreadablePictureError(f"{shown(path)} could be read a moment ago, but no longer: {err}") from err
    if pixels.shape[:2] != size:
        raise UnreadablePictureError(f"{shown(path)} changed while it was being read; run the command again")
    return pixels


def _shrunk(pixels: Bytes, height: int, width: int) -> Bytes:
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Pillow.fromarray(pixels).resize((width, height), Pillow.Resampling.BICUBIC))


def remove_old(folder: Path) -> None:
    """Remove caches that have not been opened for a month, and partial ones of killed processes."""
    for path in folder.iterdir():
        if _NAME.fullmatch(path.name):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _KEPT_S:
                    path.unlink()
    for name in {match[0] for match in map(_NAME.match, stale_parts(folder).values()) if match is not None}:
        with contextlib.suppress(OSError):
            if (held := lock(_lock_path(folder / name))) is not None:  # no process is building it
                with held:
                    _remove_parts_of(folder / name)


def _why(err: OSError, folder: Path, needed_bytes: int) -> str:
    if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        left = f"{size(shutil.disk_usage(folder).free)} left" if folder.is_dir() else "no room"
        return (
            f"the disk is full: the decoded pictures take {size(needed_bytes)}, and {shown(folder)} has "
            f"{left}; free some, name a folder on another disk with --set data.cache_dir=FOLDER, or keep "
            "fewer sizes of each picture with --set data.levels=[1.0]"
        )
    return (
        f"the decoded pictures cannot be kept in {shown(folder)}: {(err.strerror or 'unknown reason').lower()}; "
        "name another folder with --set data.cache_dir=FOLDER"
    )
