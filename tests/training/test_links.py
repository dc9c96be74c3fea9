"""Links in a run folder: their targets are neither changed nor removed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from srgan_cli.errors import SettingsError
from srgan_cli.runlog.record import LOG_NAME, SAMPLES_NAME, RunRecord, read_log
from srgan_cli.training import checkpoint
from srgan_cli.training.folder import CHECKPOINT_NAME, GOOD_NAME, claimed, write_config
from srgan_cli.training_config import TrainConfig
from tests.links import hard, pipe, symbolic

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="links need rights there"), pytest.mark.timeout(60)]
SECRET = b'{"event": "step", "step": 7}\n'


def write_log(folder: Path) -> None:
    with RunRecord(folder) as record:
        record.log({"event": "step", "step": 1})


def save_checkpoint(folder: Path) -> None:
    checkpoint.save(folder / CHECKPOINT_NAME, {"format": checkpoint.FORMAT})
    checkpoint.keep(folder / CHECKPOINT_NAME, folder / GOOD_NAME)


def claim(folder: Path) -> None:
    with claimed(folder):
        pass


@pytest.mark.parametrize("link", [symbolic, hard, pipe])
@pytest.mark.parametrize(
    ("name", "deed"),
    [
        (LOG_NAME, write_log),
        (CHECKPOINT_NAME, save_checkpoint),
        (GOOD_NAME, save_checkpoint),
        (".lock", claim),
        ("config.toml", lambda folder: write_config(folder, TrainConfig())),
    ],
)
def test_own_files_lead_nowhere_else(
    name: str, deed: Callable[[Path], None], link: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(SECRET)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text("") if name != "config.toml" else None
    link(run / name, outside)
    deed(run)
    assert outside.read_bytes() == SECRET
    assert not (run / name).exists() or ((run / name).is_file() and not (run / name).is_symlink())


def test_a_log_with_a_second_name_goes_on_in_a_copy(tmp_path: Path) -> None:
    write_log(tmp_path)
    os.link(tmp_path / LOG_NAME, tmp_path / "backup")
    with RunRecord(tmp_path, resume_bytes=10_000) as record:
        record.log({"event": "step", "step": 2})
    assert [event["step"] for event in read_log(tmp_path / LOG_NAME)] == [1, 2]
    assert [event["step"] for event in read_log(tmp_path / "backup")] == [1]


def test_a_folder_of_samples_that_is_a_link_is_refused(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "000123.png").write_bytes(b"a photo")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text("")
    (run / SAMPLES_NAME).symlink_to(photos)
    with pytest.raises(SettingsError, match="is a link"), claimed(run):
        pass
    assert (photos / "000123.png").read_bytes() == b"a photo"
