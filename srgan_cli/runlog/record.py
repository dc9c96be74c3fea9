"""Everything a run records: `log.jsonl`, TensorBoard events, `samples/`.

The log is authoritative; curves and report are made from it. Each line is an event with its step and the seconds of
training; steps count through all phases. Only one process writes (rank 0).
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
_EVENTS_FLUSH_S = 10  # TensorBoard's default of 120 s would lose two minutes when a run is killed
_NO_TENSORBOARD = (
    "TensorBoard is not installed, so no events are written for it; log.jsonl and report.html hold the same numbers. "
    "It comes with "
)


class RunRecord:
    """The only writer of a run folder.

    `resume_bytes` is the `position_bytes` stored in the checkpoint: everything after it in the log belongs to steps
    that will be repeated, and is removed, together with their samples and events. None starts from the beginning.
    `note` is called with each sentence that the record itself reports.
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
        self._last_step = -1  # TensorBoard events up to this step are kept when their next file is started
        self._rewind(max((_step(event) for event in read_log(self.path)), default=-1))

    def log(self, values: Mapping[str, object]) -> None:
        """Write one event as a line of JSON, synced when this returns. NaN and infinity become null.

        Raises `TrainingError` if the line cannot be written; the log then ends with the previous line.
        """
        line = json.dumps(plain(values), ensure_ascii=False, allow_nan=False) + "\n"
        data = line.encode("utf-8", "backslashreplace")  # a lone surrogate of a file name becomes a JSON escape
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
        """Numbers for TensorBoard, by tags such as `loss/pixel`. Without TensorBoard, only one note is given.

        After a resume or a rollback, everything recorded after that step is hidden.
        """
        try:
            if self._writes_events and self._writer is None:
                self._open_events(self._last_step + 1)
            if self._writer is not None:
                for tag, value in values.items():
                    self._writer.add_scalar(tag, value, step)
        except OSError as err:  # in its own thread, slightly delayed
            raise TrainingError(
                f"{self._folder / EVENTS_NAME} cannot be written: {err.strerror or err}. "
                "The same command resumes from the last checkpoint once there is room."
            ) from err

    def sample(self, step: int, low: Sequence[Pixels], result: Sequence[Pixels], high: Sequence[Pixels]) -> Path:
        """Write `samples/STEP.png`: a row per crop, with the low one enlarged bicubically | the result | the original.

        Each of the three is uint8 (H, W, 3), RGB; a result is as large as its original.
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
        """Remove everything after `step`."""
        self._last_step = step
        for path in sample_paths(self._folder):
            if _sample_step(path) > step:
                path.unlink(missing_ok=True)
        self._close_events()

    def _close_events(self) -> None:
        """An error while closing must not hide an exception that is already being raised."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):
                writer.close()

    def _open_events(self, first_step: int) -> None:
        """A new file of events, which tells TensorBoard to discard those from `first_step` on."""
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
    """Suppress the tracebacks of TensorBoard's thread for write errors, which `RunRecord` reports in a sentence. Other
    threads are reported as before."""
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
    """Values for JSON: NaN and infinity as None, NumPy's and PyTorch's scalars as Python's, everything else as text."""
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
    """The events of a log, in order. Invalid lines are left out: truncated ones, or ones whose step is not a number. No
    file means no events."""
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
    """Whether its step and seconds, if present, are valid."""
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
    """The end of the last complete line within `max_bytes`: after a power failure the log may be shorter than
    before."""
    with path.open("rb") as file:
        return file.read(max_bytes).rfind(b"\n") + 1


# ------------------------------------------------------------------------------------------------------------- samples

_MARGIN_PX, _GAP_PX, _HEAD_PX = 12, 8, 28
_MIN_CELL_PX = 128  # for the columns' names, with tiny crops
_PAPER, _INK = (248, 247, 244), (70, 68, 64)
_COLUMNS = ("low, bicubic", "result", "original")
_BOXES_KEY = "srgan-crops"  # key of a text chunk: the step, and the position of each crop in the sheet


@dataclass(frozen=True)
class SampleRow:
    """One validation crop, all three uint8 (H, W, 3) of one size; `low` is already enlarged."""

    low: Pixels
    result: Pixels
    high: Pixels


@dataclass(frozen=True)
class Sheet:
    step: int
    rows: tuple[SampleRow, ...]


def write_sheet(path: Path, step: int, rows: Sequence[SampleRow]) -> None:
    """Draw a sheet of samples and publish it atomically, so that viewers never see a partial file."""
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
    """The crops of a sheet, exactly; None if the picture is not a sheet, or is damaged."""
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
    """Publish atomically. Raises `TrainingError` if it cannot be written."""
    try:
        with publishing(path) as file:
            picture.save(file, "PNG", pnginfo=about)
    except OSError as err:
        raise TrainingError(f"{path} cannot be written: {reason(err)}") from err


def _sample_step(path: Path) -> int:
    return int(path.stem)
