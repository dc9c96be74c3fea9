"""Pictures decoded once, into a memory map that survives kills and full disks."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from srgan_cli.dataset import cache as cache_module
from srgan_cli.dataset import scan as scan_module
from srgan_cli.dataset.crops import build_cache, scan
from srgan_cli.errors import TrainingError, UnreadablePictureError
from srgan_cli.files import lock, part_name
from tests.dataset.photos import CROP_PX, cached, pair, pixels, put, settings


def test_the_cache_holds_every_picture_at_every_level(photos: Path) -> None:
    cache = cached(photos, levels=(1.0, 0.5, 0.3))
    assert len(cache) == 6
    assert not cache.paired
    for index in range(6):
        assert cache.levels(index) == 2  # 0.3 would be 12 px high, less than a crop
        np.testing.assert_array_equal(cache.high(index), pixels(index))
        half = Image.fromarray(pixels(index)).resize((24, 20), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(cache.high(index, 1), np.asarray(half))
    with pytest.raises(ValueError, match="read-only"):
        cache.high(0)[0] = 0


def test_a_picture_that_no_level_fits_is_kept_at_its_own_size(photos: Path) -> None:
    cache = cached(photos, levels=(0.25,))
    assert [cache.high(index).shape for index in range(6)] == [(40, 48, 3)] * 6


def test_pairs_are_cut_to_each_other(tmp_path: Path) -> None:
    pair(tmp_path, "a", 0, extra_px=1)
    cache = cached(tmp_path / "high", low_dirs=(str(tmp_path / "low"),))
    assert cache.paired
    assert (cache.levels(0), cache.high(0).shape, cache.low(0).shape) == (1, (40, 48, 3), (20, 24, 3))
    np.testing.assert_array_equal(cache.high(0)[::2, ::2], cache.low(0))


def test_a_cache_is_made_once_and_again_when_a_file_changes(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    chosen = settings(photos, val_fraction=0)
    pictures = scan(chosen, scale=2, crop_px=CROP_PX).train
    made = build_cache(pictures, chosen, scale=2, crop_px=CROP_PX, advance=lambda *at: told.append(at))
    assert told == [(n, 6) for n in range(1, 7)]
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "read_pixels", lambda path: pytest.fail("decoded a second time"))
        assert cached(photos).path == made.path
    put(photos / "0.png", pixels(50))
    os.utime(photos / "0.png", ns=(1, 1))
    changed = cached(photos)
    assert changed.path != made.path
    np.testing.assert_array_equal(changed.high(0), pixels(50))
    assert cached(photos, levels=(1.0,)).path != changed.path


def test_old_caches_go_and_strangers_stay(photos: Path) -> None:
    old = cached(photos, levels=(1.0,)).path
    stranger = old.with_name("thesis.pixels")
    stranger.touch()
    left = old.with_name(f".{part_name(old.with_name('0' * 32 + '.pixels'))}.0123456789ab.part")
    left.touch()
    busy = old.with_name(f".{part_name(old.with_name('1' * 32 + '.pixels'))}.0123456789ab.part")
    busy.touch()
    for path in (old, stranger):
        os.utime(path, (1, 1))
    other = lock(old.with_name("1" * 32 + ".lock"))
    assert other is not None
    with other:
        cache = cached(photos)
    names = {cache.path.name, stranger.name, busy.name, scan_module._MEMORY}
    assert {path.name for path in old.parent.iterdir()} == names


class _Usage(NamedTuple):
    free: int


def test_a_full_disk_is_told_before_anything_is_decoded(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage(10_000))
    monkeypatch.setattr(cache_module, "read_pixels", lambda path: pytest.fail("decoded"))
    with pytest.raises(TrainingError, match=r"the decoded pictures take .* kB, and .* has 10 kB left"):
        cached(photos)
    assert not list((photos.parent / "cache").glob("*.p*"))


def test_a_disk_that_fills_on_the_way_leaves_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match="the disk is full"):
        cached(photos)
    assert not list((photos.parent / "cache").glob("*.p*"))


def test_a_folder_that_cannot_be_written_to(photos: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot be kept in .*0\.png: file exists; .*data\.cache_dir=FOLDER"):
        cached(photos, cache_dir=str(photos / "0.png"))


def test_a_picture_that_changes_meanwhile_is_told(photos: Path) -> None:
    chosen = settings(photos, val_fraction=0)
    pictures = scan(chosen, scale=2, crop_px=CROP_PX).train
    put(photos / "1.png", pixels(1, height=44))
    with pytest.raises(UnreadablePictureError, match=r"1\.png changed"):
        build_cache(pictures, chosen, scale=2, crop_px=CROP_PX)
    (photos / "1.png").unlink()
    with pytest.raises(UnreadablePictureError, match=r"1\.png could be read a moment ago"):
        build_cache(pictures, chosen, scale=2, crop_px=CROP_PX)
    assert not list((photos.parent / "cache").glob("*.p*"))


def test_a_second_process_waits_for_the_first(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = cached(photos).path
    ready = done.rename(done.with_name("ready"))
    held = done.with_suffix(".lock")
    code = (
        "import os, sys; from pathlib import Path; from srgan_cli.files import lock; held, ready, done = sys.argv[1:];"
        "mine = lock(Path(held)); print('locked', flush=True); sys.stdin.read(1);"
        "os.replace(ready, done); mine.release()"
    )
    command = [sys.executable, "-c", code, str(held), str(ready), str(done)]
    monkeypatch.setattr(cache_module, "_LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr(cache_module, "read_pixels", lambda path: pytest.fail("decoded a second time"))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "locked\n"
        stdin = other.stdin
        told: list[int] = []

        def waiting(count: int, total: int) -> None:
            if not told:
                stdin.write("x")
                stdin.flush()
            told.append(count)

        chosen = settings(photos, val_fraction=0)
        pictures = scan(chosen, scale=2, crop_px=CROP_PX).train
        cache = build_cache(pictures, chosen, scale=2, crop_px=CROP_PX, advance=waiting)
    assert set(told) == {0}
    assert cache.path == done
    assert not held.exists()
