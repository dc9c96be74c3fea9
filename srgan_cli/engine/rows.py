"""Rows of pixels on their way into the engine."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.image import Pixels

_COPIED_ROWS = 256


class RowSource(Protocol):
    """A source of rows, from top to bottom. `srgan_cli.imaging.reading.OpenPicture` is one."""

    def read_rows(self, count: int) -> Pixels:
        """The next `count` rows, fewer at the end: (n, W, C), uint8 or uint16."""


class ArrayRows:
    """The rows of an array."""

    def __init__(self, array: Pixels) -> None:
        self._array = array
        self._next = 0

    def read_rows(self, count: int) -> Pixels:
        rows = self._array[self._next : self._next + count]
        self._next += len(rows)
        return rows


class Unchanged:
    """Used for pictures that are already large enough: an `Upscaler` of scale 1."""

    scale = 1

    def first_row(self, done_rows: int) -> int:
        return done_rows

    def upscale_rows(
        self,
        source: RowSource,
        out: Pixels,
        *,
        on_rows: Callable[[int], None] | None = None,
        on_part: object = None,
        first_row: int = 0,
    ) -> None:
        """Copy the rows of `source` into `out`, which has its size and type."""
        top = 0
        while top < len(out) and len(rows := source.read_rows(_COPIED_ROWS)):
            if top + len(rows) > first_row:
                out[top : top + len(rows)] = rows
                if on_rows is not None:
                    on_rows(top + len(rows) - max(top, first_row))
            top += len(rows)


class AheadRows:
    """Rows of a slow source, decoded by a thread a few blocks ahead. A context manager."""

    def __init__(self, source: RowSource, row_bytes: int, *, block_bytes: int = 8 << 20, blocks: int = 4) -> None:
        self._source = source
        self._count = max(1, block_bytes // row_bytes)
        self._blocks: queue.Queue[Pixels | BaseException] = queue.Queue(blocks)
        self._rest: Pixels | None = None
        self._last: Pixels | BaseException | None = None  # the empty block at the end, or an exception
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._decode, name="srgan-decoder", daemon=True)

    def __enter__(self) -> AheadRows:
        self._thread.start()
        return self

    def __exit__(self, *_args: object) -> None:
        self._stop.set()
        while self._thread.is_alive():  # it may be waiting for room in the queue
            try:
                self._blocks.get(timeout=0.02)
            except queue.Empty:
                continue
        self._thread.join()

    def _decode(self) -> None:
        block: Pixels | BaseException
        while not self._stop.is_set():
            try:
                block = self._source.read_rows(self._count)
            except BaseException as err:  # noqa: BLE001 - raised again in the thread that needs the rows
                block = err
            self._blocks.put(block)
            if isinstance(block, BaseException) or len(block) == 0:
                return

    def read_rows(self, count: int) -> Pixels:
        parts = [] if self._rest is None else [self._rest]
        while self._last is None and sum(map(len, parts)) < count:
            block = self._blocks.get()
            if isinstance(block, BaseException) or len(block) == 0:
                self._last = block
            if not isinstance(block, BaseException):
                parts.append(block)
        if isinstance(self._last, BaseException) and sum(map(len, parts)) < count:
            raise self._last
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self._rest = rows[count:]
        return rows[:count]


class RowWindow:
    """The rows read last, as many as a band may still need.

    Bands overlap by twice the halo, and a retry after an error requests the same rows again.
    """

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self._top = 0  # the picture's row index of _rows[0]
        self._rows: Pixels | None = None

    def take(self, begin: int, end: int, *, keep_from: int) -> Pixels:
        """Rows [begin, end) of the picture. Those from `keep_from` on may be requested again."""
        assert self._top <= keep_from <= begin
        try:
            if self._rows is None:
                self._drop(keep_from)
                kept = self._read(end - keep_from)
            else:
                kept = self._rows[keep_from - self._top :]
                missing = end - keep_from - len(kept)
                if missing > 0:
                    kept = np.concatenate((kept, self._read(missing)))
        except MemoryError as err:  # a smaller tile would not help
            raise UnreadablePictureError("there is not enough memory to decode it") from err
        self._rows, self._top = kept, keep_from
        return kept[begin - keep_from : end - keep_from]

    def _read(self, count: int) -> Pixels:
        rows = self._source.read_rows(count)
        if len(rows) < count:
            raise UnreadablePictureError("the picture ended before its last row")
        return rows

    def _drop(self, count: int) -> None:
        """Read past the first rows, in small steps."""
        while count > 0:
            count -= len(self._read(min(count, 256)))
