"""Every error a user can meet, and the exit code it ends with.

    SrganError                      1
    ├── PictureError                1   this picture cannot be read or written; the batch goes on
    │   ├── UnreadablePictureError  1
    │   ├── UnwritablePictureError  1
    │   ├── PictureTimeoutError     1   it took longer than it may
    │   └── DefectError             1   a fault of srgan's own, met with this picture
    ├── SettingsError               2   an option or a combination of options makes no sense
    ├── NothingToDoError            3   no input could be read at all
    ├── WeightsError                4   a model is missing, corrupt, or not for this
    ├── DeviceError                 5   the device asked for does not exist, or failed
    │   └── OutOfMemoryError        5
    ├── TrainingError               1   a training run cannot continue; what it had learned is kept
    │   └── DivergedError           1
    └── InterruptedRunError         130 Ctrl-C

Messages are sentences for the person at the terminal: what is wrong, why, and what to do about it.
Only `srgan_cli.cli` turns an error into an exit code.
"""

from __future__ import annotations

import re
import traceback
import unicodedata
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """What the command ends with. `meaning` is what help and documents say of it."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> ExitCode:
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    DONE = 0, "all done"
    SOME_FAILED = 1, "some pictures failed, the others are done"
    USAGE = 2, "the options are invalid, or would overwrite something"
    NOTHING_READABLE = 3, "no input could be read"
    WEIGHTS = 4, "the weights are missing, corrupt or unsuitable"
    DEVICE = 5, "the device is missing or failed, or has too little memory"
    INTERRUPTED = 130, "interrupted; no partial result is left"


class SrganError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = ExitCode.SOME_FAILED

    def __init__(self, message: str = "", *, terminal: str | None = None) -> None:
        super().__init__(message)
        self._terminal = terminal

    @property
    def sentence(self) -> str:
        """The message as a person at the terminal knows it, with the command's options."""
        return str(self) if self._terminal is None else self._terminal


class PictureError(SrganError):
    """One picture failed. A batch reports it in one line and continues."""


class UnreadablePictureError(PictureError):
    """The input is missing, damaged, too large, or not a picture."""


class UnwritablePictureError(PictureError):
    """The output cannot be written: format limits, no alpha, a full disk, permissions."""


class PictureTimeoutError(PictureError):
    """It took longer than --timeout."""


class DefectError(PictureError):
    """A fault of srgan's own that one picture brought to light. It costs this picture, and not the run."""


class SettingsError(SrganError):
    """An option, or a combination of options, makes no sense."""

    exit_code = ExitCode.USAGE


class NothingToDoError(SrganError):
    """Not one input could be read."""

    exit_code = ExitCode.NOTHING_READABLE


class WeightsError(SrganError):
    """A model is missing, damaged, or of an architecture that cannot be used here."""

    exit_code = ExitCode.WEIGHTS


class DeviceError(SrganError):
    """The compute device is missing or failed."""

    exit_code = ExitCode.DEVICE


class OutOfMemoryError(DeviceError):
    """Even the smallest tile does not fit into the device's memory."""


class TrainingError(SrganError):
    """A training run cannot continue: its folder cannot be written, say. The last checkpoint is whole."""


class DivergedError(TrainingError):
    """Training went wrong again and again, although it went back each time."""


class InterruptedRunError(SrganError):
    """The person pressed Ctrl-C; everything half-made has been removed."""

    exit_code = ExitCode.INTERRUPTED


_PACKAGE = Path(__file__).parent


def is_our_fault(err: BaseException) -> bool:
    """Whether an exception that came while a picture was read shows a fault of this program rather than of the file.

    Decoders raise all kinds of exceptions. Of ours are the kinds that no content can explain, raised in our lines.
    """
    frames = traceback.extract_tb(err.__traceback__)
    is_here = bool(frames) and _PACKAGE in Path(frames[-1].filename).parents
    return is_here and isinstance(err, (AssertionError, AttributeError, NameError, NotImplementedError, TypeError))


def as_defect(name: str, err: BaseException) -> DefectError:
    """The sentence for such a fault, with its place in the program, so that it can be reported."""
    frames = [f for f in traceback.extract_tb(err.__traceback__) if _PACKAGE in Path(f.filename).parents]
    place = ""
    if frames:
        place = f" at {Path(frames[-1].filename).relative_to(_PACKAGE.parent).as_posix()}:{frames[-1].lineno}"
    said = shown(str(err).strip() or "no further message")
    return DefectError(
        f"{name} cannot be made because of a defect in srgan, not in the file: {type(err).__name__}{place} ({said}). "
        "Please report this sentence, with the picture if you may pass it on"
    )


_SWITCHES = "overwrite|skip-existing|resume|only-enlarge|recursive|lossless|strict-names|fail-fast|keep-time|color-lock"
_RENAMED = {"print": "paper", "tile": "tile_px", "name": "name_pattern"}


def in_python(sentence: str) -> str:
    """A sentence for the terminal, with its options as a Python caller knows them: `--overwrite` -> `overwrite=True`,
    `--scale 4` -> `scale=4`, `-o` -> `target`."""

    def argument(match: re.Match[str]) -> str:
        name = _RENAMED.get(match[1], match[1].replace("-", "_"))
        return f"{name}={match[2]}" if match[2] else name

    sentence = re.sub(rf"(?<!\w)--({_SWITCHES})\b", lambda match: f"{match[1].replace('-', '_')}=True", sentence)
    sentence = re.sub(r"(?<!\w)--([a-z][a-z-]*[a-z])\b(?: (\d[\w.]*|[A-Z]{3,}))?", argument, sentence)
    return re.sub(r"(?<![\w-])-o\b", "target", sentence)


def shown(text: object) -> str:
    """A name (or a sentence with one) as any terminal can show it, in one line.

    Line breaks and tabs are shown as in C (`\\n`); bytes of a file name that are not UTF-8 become U+FFFD, and so do
    other control characters, which could drive the terminal.
    """
    text = str(text)
    if text.isprintable():  # nearly always, and twenty times as fast
        return text
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(_VISIBLE.get(c, "\ufffd") if unicodedata.category(c) in _BREAKING else c for c in text)


# Control characters, and what Unicode breaks lines and paragraphs with.
_BREAKING = ("Cc", "Zl", "Zp")
_VISIBLE = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
