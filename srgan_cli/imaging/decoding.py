"""The boundary through which every decoder is called.

Decoders raise all kinds of exceptions. Outside this boundary they appear only as a `PictureError` with the reason for
this file, so that one unusual file fails alone and never ends a run.

libvips has one error buffer for the whole process (see `vips_lock`). So decoders share its lock as long as they
succeed. After an error, one thread decodes the file again with the lock held exclusively, to get libvips' message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np

from srgan_cli.errors import SrganError, UnreadablePictureError, as_defect, is_our_fault
from srgan_cli.imaging.image import Pixels
from srgan_cli.imaging.oddities import HARMLESS
from srgan_cli.imaging.sources import VIPS_OPENINGS, reason_given, vips_module
from srgan_cli.imaging.vips_lock import alone, shared

T = TypeVar("T")

# Every stage of a libvips pipeline buffers what is requested at once: with few rows, a wide scan needs little memory.
_FETCH_ROWS = 64


class Rows(Protocol):
    """The source of an `OpenPicture`'s rows. `damage` describes what was lost, if damage is accepted."""

    @property
    def damage(self) -> str | None: ...

    def rows(self, top: int, count: int) -> Pixels: ...


@contextmanager
def boundary(name: str) -> Iterator[None]:
    """Turns every exception raised inside into a `PictureError`; this package's own errors pass unchanged.

    An exception that shows a defect in srgan becomes a `DefectError`.
    """
    try:
        yield
    except (SrganError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except MemoryError as err:
        raise UnreadablePictureError(f"{name}: there is not enough memory to decode it") from err
    except OSError as err:
        if err.errno is None:  # Pillow's, about the content
            raise damaged(name, reason_given(err)) from err
        raise UnreadablePictureError(f"{name} cannot be read: {(err.strerror or 'unknown reason').lower()}") from err
    except Exception as err:
        raise (as_defect(name, err) if is_our_fault(err) else damaged(name, _reason(err))) from err


# Messages of decoders for unsupported features.
NOT_FOR_US = re.compile(r"not (yet )?(supported|implemented|configured|available)|unsupported|unimplemented", re.I)


_BEHIND_THE_END = re.compile(r"^source: bad seek to \d")
_NOT_READ = re.compile(r"^: source[^:]*: read error")  # libvips' messages for data that a drive fails to deliver


def damaged(name: str, reason: str) -> UnreadablePictureError:
    """The error for a damaged file. `reason` begins with a colon or is empty: see `sources.reason_given`."""
    if _NOT_READ.search(reason):
        return UnreadablePictureError(f"{name} cannot be read completely: its drive reports an error")
    if NOT_FOR_US.search(reason):
        return UnreadablePictureError(
            f"{name} is of a kind that cannot be read here{reason}. It does not seem to be damaged: save it as an "
            "ordinary PNG, JPEG or TIFF in the program that made it"
        )
    return UnreadablePictureError(f"{name} is damaged or incomplete and cannot be decoded{reason}")


def accepted(reason: str) -> str:
    """The note on a damaged picture that is accepted."""
    return f"it is damaged{reason}; the part that could be decoded was used"


def _reason(err: Exception) -> str:
    said = reason_given(err)
    # The message of an IndexError or a ZeroDivisionError in a decoder ("list index out of range") is not informative.
    return said if isinstance(err, (ValueError, SyntaxError, EOFError)) and said else f" ({type(err).__name__}{said})"


# libvips, with its message


def _take_said() -> str:
    """What libvips has reported since the buffer was last emptied. Empties it."""
    pyvips = vips_module()
    said: str = pyvips.ffi.string(pyvips.vips_lib.vips_error_buffer()).decode("utf-8", "replace")
    pyvips.vips_lib.vips_error_clear()
    return said


Refuse = Callable[[str, str], UnreadablePictureError]  # a name, and a reason with a colon in front


def with_vips(name: str, work: Callable[[], T], refuse: Refuse = damaged) -> T:
    """The result of `work`, which uses libvips and can be called again. `refuse` turns the failure into an error."""
    failures = _failures()
    try:
        with shared():
            return work()
    except failures:
        with alone():
            _take_said()
            try:
                return work()
            except failures as err:
                raise refuse(name, _first(_words(err))) from err


def _failures() -> tuple[type[Exception], ...]:
    """The exceptions pyvips raises: its own, and a decoding error if its message, which may contain data of the file,
    is not UTF-8."""
    return vips_module().Error, UnicodeDecodeError


def _words(err: Exception) -> list[str]:
    return _lines(_take_said() if isinstance(err, UnicodeDecodeError) else str(err))


def _first(lines: list[str]) -> str:
    return f": {lines[0]}" if lines else ""


class VipsRows:
    """Rows of a libvips image. `build(strictness, tidy)` creates it again. `strictness` is libvips' `fail_on`, `strict`
    the one of `image`. `tidy` removes oddities from the file that are known to be harmless. `lost()` is called once,
    before any row is read: it reports missing parts that the decoder does not notice.

    If the strict decoder refuses a file, it is decoded again from its start with the lock held exclusively, and judged
    by the messages: a mere oddity is ignored; lost data is an `UnreadablePictureError`, or with `accept_damaged` is
    recorded as `damage`.
    """

    def __init__(
        self,
        name: str,
        build: Callable[[str, bool], Any],
        image: Any,
        refuse: Refuse,
        *,
        accept_damaged: bool,
        strict: str = "error",
        lost: Callable[[], str] = lambda: "",
    ) -> None:
        self.damage: str | None = None
        self._lost: Callable[[], str] | None = lost
        self._refuse = refuse
        self._name, self._build, self._accept, self._strict = name, build, accept_damaged, strict
        self._tidy = False
        self._is_odd = False  # its decoder is not strict, and continues after any error
        self._failures = _failures()
        self._use(image)

    def _use(self, image: Any) -> None:
        self._image = image
        self._region = vips_module().Region.new(image)

    def rows(self, top: int, count: int) -> Pixels:
        self._look_for_loss()
        if not self._is_odd:
            try:
                with shared():
                    return self._fetch(top, count)
            except self._failures:
                pass
        with alone():
            return self._judged(top, count)

    def _look_for_loss(self) -> None:
        lost = self._lost() if self._lost is not None else ""
        self._lost = None
        if lost:
            self._take_damage(f": {lost}")

    def _take_damage(self, reason: str) -> None:
        refusal = self._refuse(self._name, reason)
        if not self._accept or "is damaged" not in str(refusal):  # rows that cannot be read would come out black
            raise refusal
        self.damage = accepted(reason)

    def _fetch(self, top: int, count: int) -> Pixels:
        image = self._image
        dtype = np.uint8 if image.format == "uchar" else np.uint16
        if count == image.height:  # reading all at once is faster, and needs no more memory than the result
            whole: Pixels = np.frombuffer(image.write_to_memory(), dtype).reshape(count, image.width, image.bands)
            return whole
        pixels = np.empty((count, image.width, image.bands), dtype)
        for start in range(0, count, _FETCH_ROWS):
            some = pixels[start : start + _FETCH_ROWS]
            data = self._region.fetch(0, top + start, image.width, len(some))
            some[:] = np.frombuffer(data, dtype).reshape(some.shape)
        return pixels

    def _judged(self, top: int, count: int) -> Pixels:
        """Rows, checking the messages while they are decoded. Only with the lock held exclusively."""
        _take_said()
        try:
            pixels = self._fetch(top, count) if self._is_odd else self._from_start("error", top, count)
            said = _lines(_take_said())
            lost = [line for line in said if not HARMLESS.search(line)]
            if not lost and not self._tidy and not self._is_odd:
                return self._tidied(top, count)
            if not lost and (said or self._is_odd or self._is_sound(top, count)):
                self._is_odd = bool(said) or self._is_odd
                return pixels
        except self._failures as err:
            lost = _words(err)
        return self._damaged(top, count, _first(lost))

    def _tidied(self, top: int, count: int) -> Pixels:
        """Rows of the file without its oddities, to see further messages. libjpeg reports only one problem, and
        warnings by libtiff, about the table or the picture, are not received at all."""
        self._tidy = True
        try:
            return self._from_start(self._strict, top, count)
        except self._failures:
            return self._judged(top, count)

    def _is_sound(self, top: int, count: int) -> bool:
        """Whether the strict decoder accepts the file after all. The absence of a message proves nothing: another part
        of this process may have emptied the buffer."""
        try:
            self._from_start(self._strict, top, count)
        except self._failures:
            return False
        return True

    def _damaged(self, top: int, count: int, reason: str) -> Pixels:
        self._take_damage(reason)
        try:
            pixels = self._from_start("none", top, count)
        except self._failures as err:
            raise self._refuse(self._name, _first(_words(err))) from err
        self._is_odd = False
        return pixels

    def _from_start(self, strictness: str, top: int, count: int) -> Pixels:
        self._use(self._build(strictness, self._tidy))
        for start in range(0, top, _FETCH_ROWS):
            self._region.fetch(0, start, self._image.width, min(_FETCH_ROWS, top - start))
        return self._fetch(top, count)


def _lines(said: str) -> list[str]:
    lines = [line.strip().removeprefix("VipsJpeg: ") for line in said.splitlines()]
    lines = [line for line in lines if line and not line.startswith(VIPS_OPENINGS)]
    others = [line for line in lines if not _BEHIND_THE_END.search(line)]
    return others or ["it ends too early"] * bool(lines)


class WholeRows:
    """Rows of a picture that `decode` returns whole, (H, W) or (H, W, C), when the first row is requested, together
    with a note on what is lost, from `accepted`."""

    def __init__(self, decode: Callable[[], tuple[Any, str | None]]) -> None:
        self._decode: Callable[[], tuple[Any, str | None]] | None = decode
        self._pixels: Pixels | None = None
        self.damage: str | None = None

    def rows(self, top: int, count: int) -> Pixels:
        if self._pixels is None:
            assert self._decode is not None
            decoded, self.damage = self._decode()
            pixels = np.asarray(decoded)
            self._pixels = np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1))
            self._decode = None
        return self._pixels[top : top + count]
