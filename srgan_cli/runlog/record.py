"""What a run writes down as it goes: `log.jsonl`, TensorBoard events, `samples/`.

The log is the truth; curves and report are drawn from it. One event per line, each with the step and the seconds of
training it belongs to; steps count on through both phases. One process writes (rank 0 of several).
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from srgan_cli import stored
from srgan_cli.errors import TrainingError
from srgan_cli.extras import how_to_install
from srgan_cli.files import open_own, publishing, reason
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.imaging.image import Pixels

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG_NAME = "log.jsonl"
SAMPLES_NAME = "samples"
EVENTS_NAME = "tensorboard"

_MAX_LOG_BYTES = 1 << 30
_EVENTS_FLUSH_S = 10  # TensorBoard's own 120 s would lose two minutes of a killed run
_NO_TENSORBOARD = (
    "TensorBoard is not installed, so no events are written for it; log.jsonl and report.html hold the same numbers. "
    "It comes with "
)


class RunRecord:
    """The one writer of a run folder.

    `resume_bytes` is the `position_bytes` that the checkpoint remembered: what stands in the log after it belongs to
    steps that are about to be made again, and is cut off, together with their samples and events. None starts again.
    `note` is called with each sentence that the record itself has to tell.
    """

    def __init__(
        self, folder: Path, *, resume_bytes: int | None = None, note: Callable[[str], None] | None = None
    ) -> None:
        self._folder = folder
        self._note = note
        self._writer: SummaryWriter | None = None
        self._writes_events = True
        self.path = folder / LOG_NAME
        try:
            (folder / SAMPLES_NAME).mkdir(parents=True, exist_ok=True)
            descriptor = open_own(self.path, os.O_RDWR | os.O_APPEND)
            self._file = os.fdopen(descriptor, "ab", buffering=0)
            self.position_bytes = _whole_lines_bytes(self.path, resume_bytes or 0)
            self._file.truncate(self.position_bytes)
        except OSError as err:
            raise TrainingError(f"the run folder {folder} cannot be written: {err.strerror or err}") from err
        self._last_step = -1  # up to which events for TensorBoard are kept, when the next file of them is begun
        self._rewind(max((_step(event) for event in read_log(self.path)), default=-1))

    def log(self, values: Mapping[str, object]) -> None:
        """One event as one line of JSON, on its way to the disk when this returns. NaN and infinity become null.

        Raises `TrainingError` when the line cannot be written; the log then ends with the line before.
        """
        line = json.dumps(plain(values), ensure_ascii=False, allow_nan=False) + "\n"
        data = line.encode("utf-8", "backslashreplace")  # a lone surrogate of a file name becomes JSON's own escape
        try:
            if self._file.write(data) != len(data):
                raise OSError("the disk is full")
        except OSError as err:
            with suppress(OSError):
                self._file.truncate(self.position_bytes)
            raise TrainingError(
                f"{self.path} cannot be written: {err.strerror or err}. "
                "The same command resumes from the last checkpoint once there is room."
            ) from err
        self.position_bytes += len(data)
        if values.get("event") == "resumed":
            self._rewind(_step(values))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers for TensorBoard, by tags such as `loss/pixel`. Without TensorBoard: one note, and nothing after it.

        After a resume or a rollback, what was recorded beyond its step is hidden.
        """
        try:
            if self._writes_events and self._writer is None:
                self._open_events(self._last_step + 1)
            if self._writer is not None:
                for tag, value in values.items():
                    self._writer.add_scalar(tag, value, step)
        except OSError as err:  # of its own thread, a little late
            raise TrainingError(
                f"{self._folder / EVENTS_NAME} cannot be written: {err.strerror or err}. "
                "The same command resumes from the last checkpoint once there is room."
            ) from err

    def sample(self, step: int, low: Sequence[Pixels], result: Sequence[Pixels], high: Sequence[Pixels]) -> Path:
        """`samples/STEP.png`: a row per crop, the low one enlarged bicubically | the result | the original.

        Each of the three holds uint8 (H, W, 3), RGB; a result is as large as its original.
        """
        rows = [
            SampleRow(bicubic(small, large.shape[1], large.shape[0]), made, large)
            for small, made, large in zip(low, result, high, strict=True)
        ]
        path = self._folder / SAMPLES_NAME / f"{step:06d}.png"
        write_sheet(path, step, rows)
        return path

    def close(self) -> None:
        self._file.close()
        self._close_events()

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rewind(self, step: int) -> None:
        """Nothing that comes after `step` has happened."""
        self._last_step = step
        for path in sample_paths(self._folder):
            if _sample_step(path) > step:
                path.unlink(missing_ok=True)
        self._close_events()

    def _close_events(self) -> None:
        """What cannot be written at the end is not worth more than the error that may be on its way."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):
                writer.close()

    def _open_events(self, first_step: int) -> None:
        """A new file of events, which tells TensorBoard to forget those from `first_step` on."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._writes_events = False
            self.log({"event": "note", "step": first_step, "text": _NO_TENSORBOARD + how_to_install("train")})
            if self._note is not None:
                self._note(_NO_TENSORBOARD + how_to_install("train"))
            return
        _quieten_writers()
        self._writer = SummaryWriter(str(self._folder / EVENTS_NAME), purge_step=first_step, flush_secs=_EVENTS_FLUSH_S)


def _quieten_writers() -> None:
    """TensorBoard's thread hands on what it cannot write, and `RunRecord` says it in a sentence; Python would print a
    traceback of the thread as well. All other threads are reported as before."""
    before = threading.excepthook
    if getattr(before, "of_srgan", False):
        return

    def report(args: threading.ExceptHookArgs) -> None:
        if not (issubclass(args.exc_type, OSError) and type(args.thread).__module__.startswith("tensorboard.")):
            before(args)

    report.of_srgan = True  # type: ignore[attr-defined]
    threading.excepthook = report


# ------------------------------------------------------------------------------------------------------------- the log


def plain(value: object) -> Any:
    """What JSON can hold: NaN and infinity as None, NumPy's and PyTorch's scalars as Python's, the rest as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    item = getattr(value, "item", None)
    return plain(item()) if callable(item) else str(value)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The events of a log, in their order. What cannot be one of ours is left out: a line that a kill has cut short, or
    one whose step is not a number. No file is no events."""
    try:
        data = stored.read_bytes(path, _MAX_LOG_BYTES)
    except OSError:
        return []
    events = []
    for line in data.splitlines():
        with suppress(ValueError):
            event = stored.json_of(line)
            if isinstance(event, dict) and _is_dated(event):
                events.append(event)
    return events


def _is_dated(event: Mapping[str, Any]) -> bool:
    """Whether its step and its seconds, as far as it has any, are such."""
    with suppress(ValueError):
        for name, of in (("step", stored.whole), ("seconds", stored.real)):
            if event.get(name) is not None:
                of(event[name])
        return True
    return False


def _step(event: Mapping[str, Any]) -> int:
    step = event.get("step")
    return step if isinstance(step, int) else -1


def _whole_lines_bytes(path: Path, max_bytes: int) -> int:
    """Where the last whole line within `max_bytes` ends: after a power cut the log may be shorter than it was."""
    with path.open("rb") as file:
        return file.read(max_bytes).rfind(b"\n") + 1


# ------------------------------------------------------------------------------------------------------------- samples

_MARGIN_PX, _GAP_PX, _HEAD_PX = 12, 8, 28
_MIN_CELL_PX = 128  # room for the columns' names where the crops are tiny
_PAPER, _INK = (248, 247, 244), (70, 68, 64)
_COLUMNS = ("low, bicubic", "result", "original")
_BOXES_KEY = "srgan-crops"  # a text chunk: the step, and where each crop stands in the sheet


@dataclass(frozen=True)
class SampleRow:
    """One validation crop, all three uint8 (H, W, 3) of one size; `low` is enlarged already."""

    low: Pixels
    result: Pixels
    high: Pixels


@dataclass(frozen=True)
class Sheet:
    step: int
    rows: tuple[SampleRow, ...]


def write_sheet(path: Path, step: int, rows: Sequence[SampleRow]) -> None:
    """Draws a sheet of samples and publishes it under its name at once, so that a viewer never sees half of one."""
    cell_px = max([_MIN_CELL_PX, *(row.high.shape[1] for row in rows)])
    width = 2 * _MARGIN_PX + 3 * cell_px + 2 * _GAP_PX
    height = _HEAD_PX + sum(row.high.shape[0] + _GAP_PX for row in rows) - _GAP_PX + _MARGIN_PX
    sheet = Image.new("RGB", (width, max(height, _HEAD_PX)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    lefts = [_MARGIN_PX + column * (cell_px + _GAP_PX) for column in range(3)]
    for left, name in zip(lefts, (_COLUMNS[0], f"{_COLUMNS[1]}, step {step}", _COLUMNS[2]), strict=True):
        draw.text((left, _HEAD_PX // 2), name, _INK, font, anchor="lm")
    boxes, top = [], _HEAD_PX
    for row in rows:
        for left, pixels in zip(lefts, (row.low, row.result, row.high), strict=True):
            sheet.paste(Image.fromarray(np.ascontiguousarray(pixels)), (left, top))
        boxes.append([top, *row.high.shape[:2]])
        top += row.high.shape[0] + _GAP_PX
    about = PngImagePlugin.PngInfo()
    about.add_text(_BOXES_KEY, json.dumps({"step": step, "lefts": lefts, "boxes": boxes}))
    publish_png(sheet, path, about)


def read_sheet(path: Path) -> Sheet | None:
    """The crops of a sheet again, to the bit; None for a picture that is not one, or is damaged."""
    try:
        with Image.open(path) as picture:
            about = stored.json_of(picture.info[_BOXES_KEY])
            pixels = np.asarray(picture.convert("RGB"))
        rows = [
            SampleRow(*(pixels[top : top + height, left : left + width] for left in about["lefts"]))
            for top, height, width in about["boxes"]
        ]
        whole = all(half.shape == row.high.shape and half.size for row in rows for half in (row.low, row.result))
        return Sheet(stored.whole(about["step"]), tuple(rows)) if whole else None
    except Exception:  # noqa: BLE001 - whatever a decoder raises: it is a picture that the report goes without
        return None


def sample_paths(folder: Path) -> list[Path]:
    """The sheets of a run folder, earliest step first."""
    return sorted((p for p in (folder / SAMPLES_NAME).glob("*.png") if p.stem.isdecimal()), key=_sample_step)


def publish_png(picture: Image.Image, path: Path, about: PngImagePlugin.PngInfo | None = None) -> None:
    """All at once or not at all. Raises `TrainingError` when it cannot be written."""
    try:
        with publishing(path) as file:
            picture.save(file, "PNG", pnginfo=about)
    except OSError as err:
        raise TrainingError(f"{path} cannot be written: {reason(err)}") from err


def _sample_step(path: Path) -> int:
    return int(path.stem)
