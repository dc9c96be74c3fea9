"""The run folder: a log that survives kills and full disks, samples that can be read again, events for TensorBoard."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from srgan_cli.errors import TrainingError
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.runlog import record
from srgan_cli.runlog.record import EVENTS_NAME, LOG_NAME, RunRecord, plain, read_log, read_sheet, sample_paths


def crops(count: int, side: int = 24, seed: int = 0) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8))


def step(number: int, **more: object) -> dict[str, object]:
    return {"event": "step", "step": number, **more}


# ------------------------------------------------------------------------------------------------------------- the log


def test_each_event_is_a_line_on_its_way_to_the_disk(tmp_path: Path) -> None:
    with RunRecord(tmp_path / "a" / "run") as run:
        run.log(step(1, losses={"pixel": 0.5}))
        assert read_log(run.path) == [step(1, losses={"pixel": 0.5})]
        assert run.position_bytes == run.path.stat().st_size


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (float("nan"), None),
        (float("-inf"), None),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (torch.tensor(2.0), 2.0),
        (torch.tensor(float("inf")), None),
        (Path("a"), "a"),
        ((1, None, True), [1, None, True]),
        ({"deep": {"er": float("nan")}}, {"deep": {"er": None}}),
        ("\udcff", "\udcff"),  # a byte of a file name that is not UTF-8
    ],
)
def test_anything_can_be_logged_and_stays_json(tmp_path: Path, value: object, written: object) -> None:
    assert plain(value) == written
    with RunRecord(tmp_path) as run:
        run.log({"value": value})
    text = run.path.read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {"value": written}


def test_a_resume_cuts_off_what_will_be_made_again(tmp_path: Path) -> None:
    with RunRecord(tmp_path) as run:
        run.log(step(1))
        kept = run.position_bytes
        run.sample(1, crops(1, 6), crops(1), crops(1))
        run.log(step(2))
        run.sample(2, crops(1, 6), crops(1), crops(1))
    with RunRecord(tmp_path, resume_bytes=kept) as run:
        assert [event["step"] for event in read_log(run.path)] == [1]
        assert [path.name for path in sample_paths(tmp_path)] == ["000001.png"]
        run.log(step(2, again=True))
    assert read_log(run.path) == [step(1), step(2, again=True)]


def test_a_run_without_a_checkpoint_begins_again(tmp_path: Path) -> None:
    with RunRecord(tmp_path) as run:
        run.log(step(7))
        run.sample(0, crops(1, 6), crops(1), crops(1))
    with RunRecord(tmp_path) as run:
        assert run.position_bytes == 0
    assert read_log(run.path) == []
    assert sample_paths(tmp_path) == []


def test_a_torn_line_is_not_read_and_not_kept(tmp_path: Path) -> None:
    """After a power cut the log may even be shorter than the checkpoint remembers."""
    log = tmp_path / LOG_NAME
    log.write_bytes(b'{"event": "step", "step": 1}\n{"event": "st')
    assert [event["step"] for event in read_log(log)] == [1]
    with RunRecord(tmp_path, resume_bytes=10_000) as run:
        run.log(step(2))
    assert [event["step"] for event in read_log(log)] == [1, 2]


def test_lines_that_are_no_events_are_passed_over(tmp_path: Path) -> None:
    log = tmp_path / LOG_NAME
    log.write_bytes(b'\n[1]\n"a"\n\xff\n{"event": "note"}\n')
    assert read_log(log) == [{"event": "note"}]
    assert read_log(tmp_path / "none") == []


class FullDisk:
    """Takes half of a line."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        return int(self._file.write(data[: len(data) // 2]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_a_full_disk_is_a_sentence_and_leaves_whole_lines(tmp_path: Path) -> None:
    with RunRecord(tmp_path) as run:
        run.log(step(1))
        whole, run._file = run._file, FullDisk(run._file)  # type: ignore[assignment]
        with pytest.raises(TrainingError, match="The same command resumes"):
            run.log(step(2))
        run._file = whole
        run.log(step(3))
    assert [event["step"] for event in read_log(run.path)] == [1, 3]


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TrainingError, match="cannot be written"):
        RunRecord(tmp_path / "file")


# ------------------------------------------------------------------------------------------------------------- samples


def test_a_sheet_holds_low_result_and_high_and_can_be_read_again(tmp_path: Path) -> None:
    low, result, high = crops(3, 6, 1), crops(3, 24, 2), crops(3, 24, 3)
    with RunRecord(tmp_path) as run:
        path = run.sample(120, low, result, high)
    assert path == tmp_path / "samples" / "000120.png"
    sheet = read_sheet(path)
    assert sheet is not None
    assert sheet.step == 120
    for row, small, made, large in zip(sheet.rows, low, result, high, strict=True):
        np.testing.assert_array_equal(row.low, bicubic(small, 24, 24))
        np.testing.assert_array_equal(row.result, made)
        np.testing.assert_array_equal(row.high, large)
    assert not list(tmp_path.rglob("*.part"))


def test_crops_of_different_sizes_share_a_sheet(tmp_path: Path) -> None:
    record.write_sheet(
        tmp_path / "000001.png",
        1,
        [record.SampleRow(*[np.full((side, side + 200, 3), side, np.uint8)] * 3) for side in (8, 30)],
    )
    sheet = read_sheet(tmp_path / "000001.png")
    assert sheet is not None
    assert [row.high.shape for row in sheet.rows] == [(8, 208, 3), (30, 230, 3)]
    assert all((row.result == side).all() for row, side in zip(sheet.rows, (8, 30), strict=True))


def test_a_picture_that_is_no_sheet_is_none(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG cut short")
    assert read_sheet(tmp_path / "a.png") is None
    assert read_sheet(tmp_path / "b.png") is None
    assert read_sheet(tmp_path / "c.png") is None


def test_sheets_come_in_the_order_of_their_steps(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    for name in ("1000000.png", "000020.png", "notes.png", "200000.png"):
        (samples / name).touch()
    assert [path.stem for path in sample_paths(tmp_path)] == ["000020", "200000", "1000000"]


# --------------------------------------------------------------------------------------------------------- TensorBoard


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / EVENTS_NAME)).Reload()
    found = {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    return {tag: line for tag, line in found.items() if line}  # it keeps the names of what it has purged


@pytest.mark.parametrize("killed", [True, False])
def test_events_after_a_resume_or_a_rollback_appear_once(
    tmp_path: Path, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.summary.writer import event_file_writer

    # TensorBoard reads files in the order of their names, in which, for two files of one second, the 10th of a process
    # comes before its 9th.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    run = RunRecord(tmp_path)
    for number in (10, 20):
        run.log(step(number))
        run.scalars(number, {"loss/pixel": 1.0})
    checkpoint = run.position_bytes
    run.log(step(30))
    run.scalars(30, {"loss/pixel": 2.0})
    run.scalars(30, {"validation/psnr": 28.0})
    if killed:
        run.close()
        run = RunRecord(tmp_path, resume_bytes=checkpoint)
    run.log({"event": "resumed", "step": 20})
    run.log(step(30))
    run.scalars(30, {"loss/pixel": 3.0})
    run.close()
    assert events(tmp_path) == {"loss/pixel": [(10, 1.0), (20, 1.0), (30, 3.0)]}


def test_without_tensorboard_there_is_one_note_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    told: list[str] = []
    with RunRecord(tmp_path, note=told.append) as run:
        run.scalars(1, {"loss/pixel": 1.0})
        run.scalars(2, {"loss/pixel": 1.0})
    assert len(told) == 1
    assert "TensorBoard is not installed" in told[0]
    assert [event["text"] for event in read_log(run.path)] == told
    assert not (tmp_path / EVENTS_NAME).exists()


def test_events_that_cannot_be_written_are_a_sentence_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """TensorBoard writes with a thread of its own, which ends with the error."""
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    monkeypatch.setattr(record, "_EVENTS_FLUSH_S", 0)
    run = RunRecord(tmp_path)
    run.scalars(1, {"loss": 1.0})
    events = tmp_path / "tensorboard"
    events.rename(tmp_path / "elsewhere")  # at once: its thread may write a file while a folder is being emptied
    events.write_bytes(b"in the way")

    def go_on() -> None:
        for step in range(2, 3000):
            run.scalars(step, {"loss": 1.0})
            time.sleep(0.001)

    with pytest.raises(TrainingError, match="tensorboard cannot be written"):
        go_on()
    run.close()
    other = threading.Thread(target=lambda: 1 // 0)
    other.start()
    other.join()
    said = capfd.readouterr().err
    assert "event_file_writer" not in said
    assert "ZeroDivisionError" in said
