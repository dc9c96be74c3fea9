"""The boundary through which every decoder is called.

Decoders raise whatever they stumble over. Behind this boundary it is always a `PictureError` with this file's reason,
so that one odd file costs one picture and never a run.

libvips keeps what it has to say in one buffer for the whole process. So decoders share it while all goes well, and
whoever meets an error decodes again, alone, to learn what was said about this very file.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np

from srgan_cli.errors import SrganError, UnreadablePictureError, as_defect, is_our_fault
from srgan_cli.imaging.image import Pixels
from srgan_cli.imaging.sources import reason_given, vips_module

T = TypeVar("T")

# Every stage of a libvips pipeline holds what is asked for at once: few rows, and a wide scan stays small.
_FETCH_ROWS = 64

# What libjpeg warns of without any loss. "Extraneous bytes" are lost picture where a restart marker follows them.
_HARMLESS = re.compile(
    r"extraneous bytes before marker 0x(?!d[0-7])"
    r"|unknown JFIF revision|Unknown Adobe color transform|Inconsistent progression sequence"
    r"|tables are too coarse|Invalid SOS parameters for sequential JPEG"
)


class Rows(Protocol):
    """Where an `OpenPicture` gets its rows from. `damage` is what was lost on the way, where that is accepted."""

    @property
    def damage(self) -> str | None: ...

    def rows(self, top: int, count: int) -> Pixels: ...


@contextmanager
def boundary(name: str) -> Iterator[None]:
    """Whatever is raised inside becomes a `PictureError`; errors of this package pass as they are.

    An exception that shows a fault of our own becomes a `DefectError`.
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


# Decoders' words for what they merely cannot do.
_NOT_FOR_US = re.compile(r"not (yet )?(supported|implemented|configured|available)|unsupported|unimplemented", re.I)


def damaged(name: str, reason: str) -> UnreadablePictureError:
    """`reason` begins with a colon, or is nothing: see `sources.reason_given`."""
    if _NOT_FOR_US.search(reason):
        return UnreadablePictureError(
            f"{name} is of a kind that cannot be read here{reason}. Nothing says that it is damaged: save it as an "
            "ordinary PNG, JPEG or TIFF in the program it is from"
        )
    return UnreadablePictureError(f"{name} is damaged or incomplete and cannot be decoded{reason}")


def _reason(err: Exception) -> str:
    said = reason_given(err)
    # Of an IndexError or a ZeroDivisionError in a decoder, the message alone ("list index out of range") says little.
    return said if isinstance(err, (ValueError, SyntaxError, EOFError)) and said else f" ({type(err).__name__}{said})"


# Turns at libvips' buffer


class _Turns:
    """Many share, or one is alone. Not reentrant."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing = 0
        self._waiting = 0
        self._is_alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone and not self._waiting)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._is_alone and self._sharing == 0)
                self._is_alone = True
            finally:
                self._waiting -= 1
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()


_TURNS = _Turns()


def _take_said() -> str:
    """What libvips has said since the buffer was emptied; it is empty afterwards."""
    pyvips = vips_module()
    said: str = pyvips.ffi.string(pyvips.vips_lib.vips_error_buffer()).decode("utf-8", "replace")
    pyvips.vips_lib.vips_error_clear()
    return said


Refuse = Callable[[str, str], UnreadablePictureError]  # a name, and a reason with a colon in front


def with_vips(name: str, work: Callable[[], T], refuse: Refuse = damaged) -> T:
    """The result of `work`, which calls libvips and can be called again. `refuse` words what it fails with."""
    error = vips_module().Error
    try:
        with _TURNS.shared():
            return work()
    except error:
        with _TURNS.alone():
            _take_said()
            try:
                return work()
            except error as err:
                raise refuse(name, reason_given(err)) from err


class VipsRows:
    """Rows of a libvips image. `build(strictness)` makes it anew: `strictness` is libvips' `fail_on`.

    What the strict decoder refuses is decoded again from its start, alone, and judged by what is said about it: a mere
    oddity goes on; lost picture is an `UnreadablePictureError`, or with `accept_damaged` goes on too, as `damage`.
    """

    def __init__(
        self, name: str, build: Callable[[str], Any], image: Any, refuse: Refuse, *, accept_damaged: bool
    ) -> None:
        self.damage: str | None = None
        self._refuse = refuse
        self._name, self._build, self._accept = name, build, accept_damaged
        self._use(image)

    def _use(self, image: Any) -> None:
        pyvips = vips_module()
        self._error = pyvips.Error
        self._image = image
        self._region = pyvips.Region.new(image)

    def rows(self, top: int, count: int) -> Pixels:
        try:
            with _TURNS.shared():
                return self._fetch(top, count)
        except self._error:
            pass
        with _TURNS.alone():
            return self._again(top, count)

    def _fetch(self, top: int, count: int) -> Pixels:
        image = self._image
        dtype = np.uint8 if image.format == "uchar" else np.uint16
        if count == image.height:  # at once is quicker, and costs no more than the result
            whole: Pixels = np.frombuffer(image.write_to_memory(), dtype).reshape(count, image.width, image.bands)
            return whole
        pixels = np.empty((count, image.width, image.bands), dtype)
        for start in range(0, count, _FETCH_ROWS):
            some = pixels[start : start + _FETCH_ROWS]
            data = self._region.fetch(0, top + start, image.width, len(some))
            some[:] = np.frombuffer(data, dtype).reshape(some.shape)
        return pixels

    def _again(self, top: int, count: int) -> Pixels:
        _take_said()
        try:
            pixels = self._from_start("error", top, count)
            lost = [line for line in _lines(_take_said()) if not _HARMLESS.search(line)]
            if not lost:
                return pixels
        except self._error as err:
            lost = _lines(str(err))
        reason = f": {lost[0]}" if lost else ""
        refusal = self._refuse(self._name, reason)
        if not self._accept or "is damaged" not in str(refusal):  # what we cannot read would come out black
            raise refusal
        self.damage = f"it is damaged{reason}; what could be decoded of it was used"
        try:
            return self._from_start("none", top, count)
        except self._error as err:
            raise self._refuse(self._name, reason_given(err)) from err

    def _from_start(self, strictness: str, top: int, count: int) -> Pixels:
        self._use(self._build(strictness))
        for start in range(0, top, _FETCH_ROWS):
            self._region.fetch(0, start, self._image.width, min(_FETCH_ROWS, top - start))
        return self._fetch(top, count)


def _lines(said: str) -> list[str]:
    lines = [line.strip().removeprefix("VipsJpeg: ") for line in said.splitlines()]
    return [line for line in lines if line and not line.startswith(("unable to call", "unable to fetch"))]


class WholeRows:
    """Rows of a picture that `decode` gives whole, (H, W) or (H, W, C), when the first row is asked for."""

    damage: str | None = None

    def __init__(self, decode: Callable[[], Any]) -> None:
        self._decode: Callable[[], Any] | None = decode
        self._pixels: Pixels | None = None

    def rows(self, top: int, count: int) -> Pixels:
        if self._pixels is None:
            assert self._decode is not None
            pixels = np.asarray(self._decode())
            self._pixels = np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1))
            self._decode = None
        return self._pixels[top : top + count]
