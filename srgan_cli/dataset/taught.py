"""A teacher's stored results: pieces of pictures, with the results of a stronger network, in a memory-mapped file.

A teacher costs 10 to 100 times as much as its student, so nothing is computed twice. Its input is a *piece*: a low
picture larger than a crop, so that many crops can be taken from it, rotated and mirrored. Around the part that is
learned from, it sees `context_px` more, since the output of such networks depends on a large neighbourhood.

Piece `number` depends only on the seed: which picture, which position, and which degradation. So a file of pieces can
be extended to any length, by any run, and repaired anywhere.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np
import torch

from srgan_cli.dataset import degradation
from srgan_cli.dataset.cache import Cache, alone, remove_old
from srgan_cli.dataset.draws import generator
from srgan_cli.dataset.low_pictures import to_tensor
from srgan_cli.dataset.pictures import Bytes
from srgan_cli.dataset.scan import Advance
from srgan_cli.errors import InterruptedRunError, TrainingError, shown
from srgan_cli.files import sync
from srgan_cli.training_data_config import DegradationSettings
from srgan_cli.wording import counted

_VERSION = 1  # version of a file's content: increase it when the way of making pieces changes
_PIECES, _ORDER = 0x5069_6563, 0x5465_6163  # Philox keys beside the seed
_STEP = 2**41  # degradations of pieces use a step number that neither training nor validation reaches
_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
_CHECK = struct.Struct("<I")  # CRC-32 of a piece, stored after it

Teach: TypeAlias = Callable[[Bytes], Bytes]
"""A low picture (H, W, 3) -> the teacher's result, (H·scale, W·scale, 3)."""

Shortage: TypeAlias = Literal["", "full", "read-only"]
"""Why no more pieces could be stored: the disk is nearly full, or nothing can be written there."""


@dataclass(frozen=True)
class Teaching:
    """What determines a teacher's results, beside the pictures. `teacher` is a hash of the network."""

    teacher: str
    scale: int
    seed: int
    piece_px: int  # the side of a piece, in low px …
    context_px: int  # … of which this many are not learned from, on each side that is not the picture's border
    degradation: DegradationSettings
    unlabelled_fraction: float = 0.0


@dataclass(frozen=True)
class TaughtPiece:
    """A part of a picture, in low px: its position and size, and the inner part that is learned from.

    `labelled`: from a picture that has an original. `offset`: its position in the file.
    """

    labelled: bool
    picture: int
    level: int
    top: int
    left: int
    height: int
    width: int
    inner: tuple[slice, slice]
    offset: int
    bytes: int

    @property
    def end(self) -> int:
        return self.offset + self.bytes

    @property
    def inner_size(self) -> tuple[int, int]:
        rows, columns = self.inner
        return rows.stop - rows.start, columns.stop - columns.start


class Pieces:
    """An endless sequence of pieces, each determined by its number. Low pictures come from the originals' `cache`, and
    those without an original from `unlabelled`."""

    def __init__(self, cache: Cache, unlabelled: Cache | None, teaching: Teaching) -> None:
        self.cache, self.unlabelled, self.teaching = cache, unlabelled, teaching
        self._fraction = teaching.unlabelled_fraction if unlabelled is not None else 0.0
        self._known: list[TaughtPiece] = []
        self._order = functools.lru_cache(4)(lambda lap, size: generator(teaching.seed, _ORDER, lap).permutation(size))

    def __getitem__(self, number: int) -> TaughtPiece:
        while len(self._known) <= number:
            self._known.append(self._drawn(len(self._known)))
        return self._known[number]

    def key(self) -> str:
        """Equal if all pieces are, for any number."""
        settings = replace(self.teaching, unlabelled_fraction=self._fraction)
        if self.cache.paired:
            settings = replace(settings, degradation=DegradationSettings())  # which is not applied
        caches = [cache.path.stem for cache in (self.cache, self.unlabelled) if cache is not None]
        digest = hashlib.blake2b(f"srgan taught {_VERSION} {caches} {settings!r}".encode(), digest_size=16)
        return digest.hexdigest()

    def low(self, number: int) -> Bytes:
        """The whole piece, (height, width, 3): from the low pictures, or degraded from the high ones."""
        piece = self[number]
        rows = slice(piece.top, piece.top + piece.height)
        columns = slice(piece.left, piece.left + piece.width)
        if not piece.labelled:
            assert self.unlabelled is not None
            return self.unlabelled.high(piece.picture, piece.level)[rows, columns]
        if self.cache.paired:
            return self.cache.low(piece.picture)[rows, columns]
        return self._degraded(self._high(piece, (rows, columns)), number)

    def high(self, number: int) -> Bytes | None:
        """The original of the piece's inner part; None if there is none."""
        piece = self[number]
        if not piece.labelled:
            return None
        rows, columns = piece.inner
        moved = (_shifted(rows, piece.top), _shifted(columns, piece.left))
        return self._high(piece, moved)

    def _high(self, piece: TaughtPiece, where: tuple[slice, slice]) -> Bytes:
        scale = self.teaching.scale
        rows, columns = (slice(part.start * scale, part.stop * scale) for part in where)
        return self.cache.high(piece.picture, piece.level)[rows, columns]

    def _degraded(self, high: Bytes, number: int) -> Bytes:
        teaching = self.teaching
        values = degradation.sample(teaching.degradation, degradation.rng_for(teaching.seed, _STEP, number))
        low = degradation.apply(to_tensor(high), [values], teaching.scale)[0]  # (3, H, W), multiples of 1/255
        pixels: Bytes = (low * 255.0 + 0.5).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        return pixels

    def _drawn(self, number: int) -> TaughtPiece:
        """The next piece: a fixed fraction comes from pictures without an original, and each kind takes its pictures in
        turn."""
        unlabelled = int((number + 1) * self._fraction) > int(number * self._fraction)
        before = int(number * self._fraction)
        cache = self.unlabelled if unlabelled else self.cache
        assert cache is not None
        lap, place = divmod(before if unlabelled else number - before, len(cache))
        index = int(self._order(2 * lap + unlabelled, len(cache))[place])
        level, y, x = generator(self.teaching.seed, _PIECES, number).random(3)
        chosen = int(level * cache.levels(index))
        scale = 1 if unlabelled else self.teaching.scale
        height, width = (side // scale for side in cache.high(index, chosen).shape[:2])
        top, tall, rows = self._along(height, y)
        left, wide, columns = self._along(width, x)
        offset = self._known[-1].end if self._known else 0
        inner_px = (rows.stop - rows.start) * (columns.stop - columns.start)
        size_bytes = inner_px * 3 * (1 + self.teaching.scale**2) + _CHECK.size
        return TaughtPiece(not unlabelled, index, chosen, top, left, tall, wide, (rows, columns), offset, size_bytes)

    def _along(self, length: int, draw: float) -> tuple[int, int, slice]:
        """Along one axis of a picture: the piece's start, its length, and its inner part.

        At the picture's own border nothing is cut off, since the teacher sees that border in use, too.
        """
        side, context = min(self.teaching.piece_px, length), self.teaching.context_px
        begin = int(draw * (length - side + 1))
        return begin, side, slice(context if begin else 0, side - (context if begin + side < length else 0))


def _shifted(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


# ------------------------------------------------------------------------------------------------------------- the file


class Taught:
    """The first `count` pieces with their teacher's results, memory-mapped. Arrays are read-only.

    `shortage`: why there are not more of them.
    """

    def __init__(self, path: Path, pieces: Pieces, count: int, shortage: Shortage = "") -> None:
        assert count > 0
        self.shortage = shortage
        self.path, self.pieces, self.scale = path, pieces, pieces.teaching.scale
        self._count = count
        self._pixels = np.memmap(path, np.uint8, "r", shape=(pieces[count - 1].end,)).view(np.ndarray)

    @classmethod
    def opened(cls, folder: Path, pieces: Pieces, count: int, shortage: Shortage = "") -> Taught:
        """The results that `teach` has stored in `folder`. Raises `TrainingError` if they are no longer there."""
        path = _path(folder, pieces)
        try:
            return cls(path, pieces, count, shortage)
        except (OSError, ValueError) as err:  # ValueError: it has become shorter
            raise TrainingError(
                f"the teacher's results in {shown(folder)} have been removed while they were being made; run the "
                "command again, which makes them again"
            ) from err

    def __len__(self) -> int:
        return self._count

    def low(self, number: int) -> Bytes:
        """The inner part of a piece, (h, w, 3)."""
        piece = self.pieces[number]
        height, width = piece.inner_size
        return self._pixels[piece.offset :][: height * width * 3].reshape(height, width, 3)

    def result(self, number: int) -> Bytes:
        """The teacher's result for it, (h·scale, w·scale, 3)."""
        piece = self.pieces[number]
        height, width = piece.inner_size
        pixels = self._pixels[piece.offset + height * width * 3 : piece.end - _CHECK.size]
        return pixels.reshape(height * self.scale, width * self.scale, 3)

    def high(self, number: int) -> Bytes:
        """The original; if there is none, the teacher's result."""
        original = self.pieces.high(number)
        return self.result(number) if original is None else original


@dataclass(frozen=True)
class Allowance:
    """Number of pieces: `count`; or, if that is 0, as many as can be made in `seconds`, in addition to the `begun` ones
    that a run has learned from before; at most `most` in all."""

    count: int = 0
    seconds: float = 0.0
    begun: int = 0
    most: int = 8192

    @property
    def limit(self) -> int:
        return self.count or max(self.begun, self.most)

    @property
    def needed(self) -> int:
        """There must be at least so many."""
        return self.count or max(self.begun, 1)

    def total(self, made: int, elapsed_s: float) -> int:
        """The expected total, after making `made` of them in `elapsed_s`."""
        if self.count or not made or elapsed_s <= 0:
            return self.limit
        return max(1, min(self.limit, self.begun + int(self.seconds * made / elapsed_s)))


def teach(
    pieces: Pieces,
    teacher: Teach,
    folder: Path,
    allowed: Allowance,
    advance: Advance | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Taught:
    """As many pieces as are `allowed`, with the teacher's results: those already stored, and new ones.

    A truncated or damaged file is repaired: each piece has a checksum, and pieces that do not match are made again. A
    second process that needs the same file waits until the first one has finished. If nothing can be written to the
    folder, the intact pieces in it are used, unless more are needed.

    Raises `TrainingError` if the folder is not writable or the disk is full, and `InterruptedRunError` on Ctrl-C; what
    has been made by then is kept, and the next run resumes from there.
    """
    report = advance or (lambda done, total: None)
    path = _path(folder, pieces)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_old(folder)
        with alone(path, waiting=lambda: report(0, allowed.limit)), _opened(path) as file:
            count, shortage = _fill(file, pieces, teacher, allowed, report, clock)
    except OSError as err:
        count, shortage = _readable(path, pieces, allowed) if err.errno in _UNWRITABLE else 0, "read-only"
        if not count:
            raise TrainingError(_why(err, folder)) from err
    return Taught.opened(folder, pieces, count, shortage)


def _readable(path: Path, pieces: Pieces, allowed: Allowance) -> int:
    """How many pieces of a file that cannot be changed can be learned from; 0 if more are needed."""
    with suppress(OSError), path.open("rb") as file:
        known = _whole(file, pieces, allowed.limit)
        count = next(number for number in range(allowed.limit + 1) if number not in known)
        return count if count >= allowed.needed else 0
    return 0


def _path(folder: Path, pieces: Pieces) -> Path:
    return folder / f"{pieces.key()}.taught"


def _fill(
    file: BinaryIO, pieces: Pieces, teacher: Teach, allowed: Allowance, report: Advance, clock: Callable[[], float]
) -> tuple[int, Shortage]:
    """Make the missing ones of the first pieces. Returns how many are complete then, and why there are not more."""
    known = _whole(file, pieces, allowed.limit)
    max_bytes = _room(file, pieces, allowed)
    done, made, cramped, began_s = 0, 0, False, clock()
    try:
        while done < allowed.limit:
            missing = done not in known
            if missing:
                elapsed_s = clock() - began_s
                # Pieces from earlier runs count as if they had been made now, since learning needs time too.
                enough = done and made and done >= allowed.total(made, elapsed_s)
                cramped = not enough and done >= allowed.begun and pieces[done].end > max_bytes
                if not allowed.count and (enough or cramped):
                    break
                _make(file, pieces, done, teacher)
                made += 1
            done += 1
            if missing:
                report(done, max(done, allowed.total(made, clock() - began_s)))
    except KeyboardInterrupt as err:
        raise InterruptedRunError(_kept_so_far(done, Path(file.name).parent)) from err
    sync(file)
    if not done:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return done, "full" if cramped and not allowed.count else ""


def _kept_so_far(done: int, folder: Path) -> str:
    kept = f"its results so far, for {counted(done, 'piece')}, are kept in {shown(folder)}" if done else ""
    return (
        f"stopped while the teacher was working, before any step; {kept or 'nothing is lost'}, and the same command "
        "resumes"
    )


def _make(file: BinaryIO, pieces: Pieces, number: int, teacher: Teach) -> None:
    piece, scale = pieces[number], pieces.teaching.scale
    low = pieces.low(number)
    result = teacher(low)
    assert result.shape == (piece.height * scale, piece.width * scale, 3), "a teacher enlarges by the scale"
    rows, columns = piece.inner
    large = tuple(slice(part.start * scale, part.stop * scale) for part in piece.inner)
    data = low[rows, columns].tobytes() + result[large].tobytes()
    file.seek(piece.offset)
    file.write(data + _CHECK.pack(zlib.crc32(data)))


def _whole(file: BinaryIO, pieces: Pieces, limit: int) -> set[int]:
    """Which of the first pieces are intact in the file."""
    size = os.fstat(file.fileno()).st_size
    found = set()
    for number in range(limit):
        piece = pieces[number]
        if piece.end > size:
            break
        file.seek(piece.offset)
        data = file.read(piece.bytes)
        if zlib.crc32(data[: -_CHECK.size]) == _CHECK.unpack(data[-_CHECK.size :])[0]:
            found.add(number)
    return found


def _room(file: BinaryIO, pieces: Pieces, allowed: Allowance) -> int:
    """The maximum size of the file: half of the free space if the number of pieces is not given.

    Raises `OSError` if the given number does not fit on the disk, before hours are spent on it.
    """
    size, free = os.fstat(file.fileno()).st_size, shutil.disk_usage(file.name).free
    if allowed.count and pieces[allowed.count - 1].end - size > free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return size + free // 2


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open for reading and writing in place. It is never made shorter, since another run may have it mapped."""
    path.touch()  # mark it as used today; see `cache.remove_old`
    with path.open("r+b") as file:
        yield file


def _why(err: OSError, folder: Path) -> str:
    if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"the disk is full: the teacher's results do not fit into {shown(folder)}; those made so far are kept. "
            "Free some space, name a folder on another disk with --set data.cache_dir=FOLDER, or ask for fewer of "
            "them with --set teacher.crops=N"
        )
    return (
        f"the teacher's results cannot be kept in {shown(folder)}: {(err.strerror or 'unknown reason').lower()}; "
        "name another folder with --set data.cache_dir=FOLDER"
    )
