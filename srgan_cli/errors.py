"""Every error a user can meet, and the exit code it ends with.

    SrganError                      1
    ├── PictureError                1   this picture cannot be read or written; the batch continues
    │   ├── UnreadablePictureError  1
    │   ├── UnwritablePictureError  1
    │   ├── PictureTimeoutError     1   it exceeded --timeout
    │   └── DefectError             1   a defect in srgan that this picture triggered
    ├── SettingsError               2   invalid options
    ├── NothingToDoError            3   no input could be read at all
    ├── WeightsError                4   a model is missing, corrupt or unsuitable
    ├── DeviceError                 5   the device asked for does not exist, or failed
    │   └── OutOfMemoryError        5
    ├── TrainingError               1   a training run cannot continue; its last checkpoint is kept
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
    """The command's exit code. `meaning` is its description in help and documents."""

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
        """The message with options spelled as on the command line, for the terminal."""
        return str(self) if self._terminal is None else self._terminal


class PictureError(SrganError):
    """One picture failed. A batch reports it in one line and continues."""


class UnreadablePictureError(PictureError):
    """The input is missing, damaged, too large, or not a picture."""


class UnwritablePictureError(PictureError):
    """The output cannot be written: format limits, no alpha, a full disk, permissions."""


class PictureTimeoutError(PictureError):
    """The picture took longer than --timeout."""


class DefectError(PictureError):
    """A defect in srgan that this picture triggered. Only this picture fails; the run continues."""


class SettingsError(SrganError):
    """An option is invalid, or options contradict each other."""

    exit_code = ExitCode.USAGE


class NothingToDoError(SrganError):
    """No input could be read."""

    exit_code = ExitCode.NOTHING_READABLE


class WeightsError(SrganError):
    """A model is missing, corrupt, or of an architecture that is not supported here."""

    exit_code = ExitCode.WEIGHTS


class DeviceError(SrganError):
    """The compute device is missing or failed."""

    exit_code = ExitCode.DEVICE


class OutOfMemoryError(DeviceError):
    """Even the smallest tile does not fit into the device's memory."""


class TrainingError(SrganError):
    """A training run cannot continue, for example because its folder is not writable. The last checkpoint is
    complete."""


class DivergedError(TrainingError):
    """Training diverged repeatedly, even after rolling back."""


class InterruptedRunError(SrganError):
    """The user pressed Ctrl-C, or the process was asked to end. Partial results have been removed."""

    exit_code = ExitCode.INTERRUPTED


_PACKAGE = Path(__file__).parent


def is_our_fault(err: BaseException) -> bool:
    """Whether an exception raised while reading a picture shows a defect in srgan, not a fault of the file.

    Decoders raise all kinds of exceptions. It is a bug if no file content can explain the exception's type and it was
    raised in srgan's own code.
    """
    frames = traceback.extract_tb(err.__traceback__)
    is_here = bool(frames) and _PACKAGE in Path(frames[-1].filename).parents
    return is_here and isinstance(err, (AssertionError, AttributeError, NameError, NotImplementedError, TypeError))


def as_defect(name: str, err: BaseException) -> DefectError:
    """The error for such a bug, with the location in the code, so that it can be reported."""
    frames = [f for f in traceback.extract_tb(err.__traceback__) if _PACKAGE in Path(f.filename).parents]
    place = ""
    if frames:
        place = f" at {Path(frames[-1].filename).relative_to(_PACKAGE.parent).as_posix()}:{frames[-1].lineno}"
    said = shown(str(err).strip() or "no further message")
    return DefectError(
        f"{name} cannot be made because of a defect in srgan, not in the file: {type(err).__name__}{place} ({said}). "
        "Please report this message, with the picture if you may pass it on"
    )


_SWITCHES = "overwrite|skip-existing|resume|only-enlarge|recursive|lossless|strict-names|fail-fast|keep-time|color-lock"
_CHOICES = r"(?:png|jpeg|webp|tiff|avif|gif|bmp)\b"
_RENAMED = {"print": "paper", "tile": "tile_px", "name": "name_pattern"}


def in_python(sentence: str) -> str:
    """A sentence for the terminal, with options spelled as Python arguments: `--overwrite` -> `overwrite=True`,
    `--scale 4` -> `scale=4`, `-o` -> `target`. Commands in backticks stay."""

    def argument(match: re.Match[str]) -> str:
        name = _RENAMED.get(match[1], match[1].replace("-", "_"))
        return f"{name}={match[2]}" if match[2] else name

    plain, command, others = sentence.partition("`srgan ")
    if command:
        command_end, backtick, others = others.partition("`")
        return in_python(plain) + command + command_end + backtick + in_python(others)
    sentence = re.sub(rf"(?<!\w)--({_SWITCHES})\b", lambda match: f"{match[1].replace('-', '_')}=True", sentence)
    sentence = re.sub(rf"(?<!\w)--([a-z][a-z-]*[a-z])\b(?: (\d[\w.]*|[A-Z]{{3,}}|{_CHOICES}))?", argument, sentence)
    return re.sub(r"(?<![\w-])-o\b", "target", sentence)


def shown(text: object) -> str:
    """A name (or a sentence with one) as a single line that any terminal can display.

    Line breaks and tabs are escaped as in C (`\\n`). Bytes of a file name that are not UTF-8, and other control
    characters (which could control the terminal, or turn round the rest of its line), become U+FFFD.
    """
    text = str(text)
    if text.isprintable():  # the usual case, and twenty times as fast
        return text
    return "".join(_VISIBLE.get(c, "\ufffd") if _disturbs(c) else c for c in text)


def _disturbs(character: str) -> bool:
    return unicodedata.category(character) in _BREAKING or unicodedata.bidirectional(character) in _TURNING


# Control characters, surrogates (bytes that are not UTF-8), and Unicode's line and paragraph separators.
_BREAKING = ("Cc", "Cs", "Zl", "Zp")
_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # they change the direction of what follows
_VISIBLE = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
