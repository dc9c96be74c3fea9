"""Which pictures are learned from, how they are decoded and kept, and the crops that are cut from them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

from srgan_cli.dataset import cache as cache_module
from srgan_cli.dataset import crops as data_module
from srgan_cli.dataset import scan as scan_module
from srgan_cli.dataset.crops import Batch, Cache, Crops, Picture, Scan, build_cache, read_pixels, scan
from srgan_cli.dataset.pictures import SUFFIXES, Bytes, in_order, look_at
from srgan_cli.errors import NothingToDoError, SettingsError, TrainingError, UnreadablePictureError
from srgan_cli.files import lock, part_name
from srgan_cli.training_data_config import DataSettings

CROP_PX = 16


def pixels(seed: int, height: int = 40, width: int = 48) -> Bytes:
    """A smooth picture, another one for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def put(path: Path, array: Bytes, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(6):
        put(tmp_path / "photos" / f"{seed}.png", pixels(seed))
    return tmp_path / "photos"


def settings(folder: Path, **changes: Any) -> DataSettings:
    return DataSettings(**{"high_dirs": (str(folder),), "cache_dir": str(folder.parent / "cache"), **changes})


def looked(folder: Path, *, scale: int = 2, crop_px: int = CROP_PX, **changes: Any) -> Scan:
    return scan(settings(folder, **changes), scale=scale, crop_px=crop_px)


def reasons(result: Scan) -> dict[str, str]:
    return {refusal.path.name: refusal.kind for refusal in result.refused}


def names(pictures: tuple[Picture, ...]) -> list[str]:
    return [picture.path.name for picture in pictures]


# ------------------------------------------------------------------------------------------------------------- decoding


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = put(tmp_path / f"a.{suffix}", pixels(0), exif=exif)
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    result, facts = read_pixels(path), look_at(path)
    np.testing.assert_array_equal(result, expected)
    assert (facts.height, facts.width) == result.shape[:2]


@pytest.mark.parametrize("suffix", ["png", "tif", "ppm"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_rounded_and_not_cut(tmp_path: Path, suffix: str, channels: int) -> None:
    if suffix == "ppm" and channels == 4:
        pytest.skip("PPM has no alpha")
    wide = np.random.default_rng(0).integers(0, 65536, (9, 11, channels), dtype=np.uint16)
    wide[..., 3:] = 65535
    path = tmp_path / f"a.{'pgm' if suffix == 'ppm' and channels == 1 else suffix}"
    assert cv2.imwrite(str(path), wide)
    expected = np.rint(wide[..., [2, 1, 0] if channels > 1 else [0, 0, 0]] / 257.0)
    np.testing.assert_array_equal(read_pixels(path), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(pixels(0)).convert(mode)
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), np.asarray(picture.convert("RGB")))


def test_the_numbers_of_another_colour_space_stay_as_they_are(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    path = put(tmp_path / "a.png", pixels(0), icc_profile=profile)
    np.testing.assert_array_equal(read_pixels(path), pixels(0))


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 90, 95, 100])
def test_jpeg_quality_is_found_again(tmp_path: Path, quality: int) -> None:
    assert look_at(put(tmp_path / "a.jpg", pixels(0), quality=quality)).jpeg_quality == quality


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("read", [read_pixels, look_at])
def test_a_file_cut_short_is_told(tmp_path: Path, suffix: str, read: Callable[[Path], object]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    path = put(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(UnreadablePictureError, match="damaged or incomplete"):
        read(path)


def test_work_is_done_in_order_and_only_a_little_ahead() -> None:
    begun: list[int] = []
    results = in_order(lambda n: (begun.append(n), n * n)[1], range(1000))
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(begun) < 500
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda n: 1 // n, [2, 1, 0]))


# ----------------------------------------------------------------------------------------------------------------- scan


def test_a_folder_is_shared_out(photos: Path) -> None:
    result = looked(photos, val_fraction=0.5)
    assert not result.refused
    assert sorted(names(result.train) + names(result.val)) == [f"{n}.png" for n in range(6)]
    assert result.val
    assert result.split == f"{len(result.val)} of 6 are held out, chosen by a hash of their pixels"
    assert {(picture.width, picture.height, picture.low) for picture in result.train} == {(48, 40, None)}


def test_at_least_one_and_at_most_val_max_are_held_out(photos: Path) -> None:
    assert len(looked(photos, val_fraction=1e-9).val) == 1
    assert len(looked(photos, val_fraction=0.5, val_max=1).val) == 1
    assert looked(photos, val_fraction=0).val == ()


@pytest.mark.parametrize(("count", "held"), [(12, 1), (24, 2), (60, 4)])
def test_of_a_few_dozen_photos_more_than_one_is_held_out(tmp_path: Path, count: int, held: int) -> None:
    for seed in range(count):
        put(tmp_path / "few" / f"{seed}.png", pixels(seed))
    assert len(looked(tmp_path / "few", val_fraction=1e-9).val) == held
    assert len(looked(tmp_path / "few", val_fraction=1e-9, val_max=1).val) == 1


def test_one_picture_is_for_learning(tmp_path: Path) -> None:
    put(tmp_path / "one" / "a.png", pixels(0))
    result = looked(tmp_path / "one")
    assert (len(result.train), len(result.val)) == (1, 0)
    assert "only one" in result.split


def test_the_split_stays_when_pictures_come_and_names_change(photos: Path) -> None:
    before = {read_pixels(p.path).tobytes() for p in looked(photos, val_fraction=0.3).val}
    (photos / "0.png").rename(photos / "z.png")
    (photos / "1.png").rename(photos / "y.png")
    for seed in range(6, 20):
        put(photos / "more" / f"{seed}.png", pixels(seed))
    after = {read_pixels(p.path).tobytes() for p in looked(photos, val_fraction=0.3).val}
    assert before < after


def test_a_copy_elsewhere_gives_the_same_lists(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "a" / "copy")
    here, there = looked(photos), looked(tmp_path / "a" / "copy")
    assert (names(here.train), names(here.val)) == (names(there.train), names(there.val))


def test_what_is_left_out_and_why(photos: Path) -> None:
    put(photos / "small.png", pixels(10, height=15))
    put(photos / "flat.png", np.full((40, 48, 3), 90, np.uint8))
    put(photos / "sub" / "squeezed.jpg", pixels(11), quality=40)
    put(photos / "same.bmp", pixels(3))
    (photos / "text.jpg").write_text("a letter")
    (photos / "empty.png").touch()
    (photos / ".hidden.png").touch()
    (photos / "notes.txt").touch()
    assert reasons(looked(photos)) == {
        "small.png": "too small",
        "flat.png": "nearly flat",
        "squeezed.jpg": "heavily compressed",
        "same.bmp": "duplicate",
        "text.jpg": "unreadable",
        "empty.png": "unreadable",
    }
    told = {refusal.path.name: refusal.reason for refusal in looked(photos).refused}
    assert told["small.png"] == "48×15 px, smaller than the 16 px that are needed each way"
    assert told["squeezed.jpg"] == "compressed as JPEG of quality 40, below 70"
    assert told["same.bmp"] == f"the same picture as {photos / '3.png'}"
    assert told["empty.png"] == "empty (0 bytes)"
    assert "squeezed.jpg" not in reasons(looked(photos, min_jpeg_quality=40))
    assert "flat.png" not in reasons(looked(photos, min_std=0.0))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes and links")
def test_links_are_followed_but_not_in_circles_and_pipes_are_not_read(photos: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "far.png", pixels(9))
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    (photos / "circle").symlink_to(photos)
    (photos / "self.png").symlink_to(photos / "self.png")
    (photos / "dead.png").symlink_to("nowhere")
    os.mkfifo(photos / "pipe.png")
    result = looked(photos)
    assert sorted(names(result.train) + names(result.val)) == [*(f"{n}.png" for n in range(6)), "far.png"]
    assert reasons(result) == dict.fromkeys(["self.png", "dead.png", "pipe.png"], "unreadable")


def test_folders_within_folders_count_once(photos: Path) -> None:
    put(photos / "sub" / "a.png", pixels(8))
    both = (str(photos), str(photos / "sub"), str(photos))
    result = looked(photos, high_dirs=both, val_fraction=0)
    assert len(result.train) == 7
    assert not result.refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "there is no folder .*photos"),
        (lambda folder: folder.mkdir(), "there are no pictures in .*photos$"),
        (lambda folder: folder.touch(), "photos is not a folder"),
        (lambda folder: put(folder / "a.txt", pixels(0), format="PNG"), "has other names than pictures"),
        (lambda folder: put(folder / "a.png", pixels(0, height=13)), r"1 too small.*13 px.*\(--crop 12\)"),
        (lambda folder: put(folder / "a.jpg", pixels(0), quality=9), "1 heavily compressed.*min_jpeg_quality=0"),
        (lambda folder: put(folder / "a.jpg", pixels(0) * 0), "1 nearly flat.*min_std=0"),
    ],
)
def test_nothing_to_learn_from_is_an_error_that_helps(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "photos")
    with pytest.raises(NothingToDoError, match=message):
        looked(tmp_path / "photos")


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(NothingToDoError, match="--hr-dir"):
        looked(tmp_path, high_dirs=())


def test_pictures_to_judge_by_are_never_learned_from(photos: Path) -> None:
    put(photos / "val" / "a.png", pixels(2))  # also 2.png, and within the folder for learning itself
    put(photos / "val" / "b.png", pixels(20, height=20))
    put(photos / "val" / "flat.png", np.full((40, 48, 3), 90, np.uint8))
    put(photos / "val" / "tiny.png", pixels(21, height=19))  # 16 px, and 2 px of border all round, are needed
    result = looked(photos, val_dir=str(photos / "val"))
    assert names(result.val) == ["a.png", "b.png", "flat.png"]
    assert names(result.train) == ["0.png", "1.png", "3.png", "4.png", "5.png", "tiny.png"]
    assert result.split == f"those of {photos / 'val'}"
    assert [r.reason for r in result.refused if r.path.name == "2.png"] == [
        f"kept for validation, as {photos / 'val' / 'a.png'}"
    ]


def test_nothing_is_looked_at_twice(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def counted(path: Path) -> Any:
        seen.append(path.name)
        return look_at(path)

    monkeypatch.setattr(scan_module, "look_at", counted)
    first = looked(photos)
    assert len(seen) == 6
    assert looked(photos) == first
    assert len(seen) == 6
    put(photos / "3.png", pixels(33, height=41))
    looked(photos)
    assert seen[6:] == ["3.png"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}'])
def test_a_damaged_memory_is_forgotten(photos: Path, text: str) -> None:
    expected = looked(photos)
    remembered = photos.parent / "cache" / scan_module._MEMORY
    remembered.write_text(text)
    assert looked(photos) == expected
    assert text == '{"a": 1}' or len(json.loads(remembered.read_text())) == 6


def test_every_suffix_that_upscale_walks_over_is_learned_from() -> None:
    assert {".png", ".jpg", ".webp", ".tif", ".avif", ".heic", ".ppm"} <= SUFFIXES
    assert not {".eps", ".pdf", ".svg"} & SUFFIXES


# --------------------------------------------------------------------------------------------------------------- paired


def pair(root: Path, name: str, seed: int, *, scale: int = 2, low_name: str | None = None, extra_px: int = 0) -> None:
    high = pixels(seed, 40 + extra_px, 48 + extra_px)
    put(root / "high" / f"{name}.png", high)
    small = high[:40:scale, :48:scale]  # nearest: each small pixel is the first of its block
    put(root / "low" / f"{low_name or name}.png", np.ascontiguousarray(small))


def test_pairs_are_matched_by_name_and_size(tmp_path: Path) -> None:
    pair(tmp_path, "a", 0)
    pair(tmp_path, "b", 1, low_name="bx2")
    pair(tmp_path, "sub/c", 2, extra_px=1)
    pair(tmp_path, "wrong", 3)
    put(tmp_path / "low" / "wrong.png", pixels(3, 21, 24))
    put(tmp_path / "high" / "alone.png", pixels(4))
    put(tmp_path / "low" / "widow.png", pixels(5))
    pair(tmp_path, "broken", 6)
    (tmp_path / "low" / "broken.png").write_bytes(b"broken")
    pair(tmp_path, "two", 7)
    put(tmp_path / "low" / "two.bmp", pixels(7, 20, 24))
    result = looked(tmp_path / "high", low_dirs=(str(tmp_path / "low"),), val_fraction=0)
    assert [(p.path.name, p.low.name) for p in result.train if p.low] == [
        ("a.png", "a.png"),
        ("b.png", "bx2.png"),
        ("c.png", "c.png"),
    ]
    assert reasons(result) == dict.fromkeys(
        ["wrong.png", "alone.png", "widow.png", "broken.png", "two.png"], "unpaired"
    )


def test_one_large_picture_may_have_several_small_ones_but_not_on_both_sides(tmp_path: Path) -> None:
    for seed in range(4):
        pair(tmp_path, f"a{seed}", seed)
        high = put(tmp_path / "high" / f"b{seed}.png", pixels(seed))
        small = read_pixels(high)[1::2, 1::2]
        put(tmp_path / "low" / f"b{seed}.png", np.ascontiguousarray(small))
    result = looked(tmp_path / "high", low_dirs=(str(tmp_path / "low"),))
    assert len(result.train) + len(result.val) == 8
    assert {p.path.name[1:] for p in result.val}.isdisjoint(p.path.name[1:] for p in result.train)
    assert len(result.val) == 2
    put(tmp_path / "val" / "a.png", pixels(2))
    result = looked(tmp_path / "high", low_dirs=(str(tmp_path / "low"),), val_dir=str(tmp_path / "val"))
    assert {p.path.name for p in result.train} == {f"{letter}{seed}.png" for letter in "ab" for seed in (0, 1, 3)}


def test_folders_of_pairs_must_fit_each_other(tmp_path: Path) -> None:
    pair(tmp_path, "a", 0)
    high, low = str(tmp_path / "high"), str(tmp_path / "low")
    with pytest.raises(SettingsError, match="3 folders of large pictures and 2 of small ones"):
        looked(tmp_path, high_dirs=(high,) * 3, low_dirs=(low,) * 2)


# ---------------------------------------------------------------------------------------------------------------- cache


def cached(folder: Path, *, scale: int = 2, crop_px: int = CROP_PX, **changes: Any) -> Cache:
    chosen = settings(folder, **{"val_fraction": 0, **changes})
    pictures = scan(chosen, scale=scale, crop_px=crop_px).train
    return build_cache(pictures, chosen, scale=scale, crop_px=crop_px)


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


def test_a_cache_is_made_once_and_anew_when_a_file_changes(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(TrainingError, match=r"the disk is full: the decoded pictures take 0 MB, and .* has 0 MB left"):
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
    with pytest.raises(UnreadablePictureError, match=r"1\.png has changed"):
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


# ---------------------------------------------------------------------------------------------------------------- crops


def drawn(cache: Cache, steps: int, **changes: Any) -> list[Batch]:
    options: dict[str, Any] = {"seed": 7, "batch": 4, "crop_px": CROP_PX, "scale": 2, "augment": True}
    crops = Crops(cache, **{**options, **changes})
    try:
        return [next(crops) for _ in range(steps)]
    finally:
        crops.close()


def same(one: Batch, other: Batch) -> bool:
    return one.step == other.step and torch.equal(one.high, other.high)


def test_a_batch_is_bytes_in_channels_last(photos: Path) -> None:
    batch = drawn(cached(photos), 1)[0]
    assert (batch.high.shape, batch.high.dtype, batch.low) == ((4, 3, CROP_PX, CROP_PX), torch.uint8, None)
    assert batch.high.is_contiguous(memory_format=torch.channels_last)


def test_crops_are_cut_from_the_pictures(photos: Path) -> None:
    cache = cached(photos)
    windows = [
        np.lib.stride_tricks.sliding_window_view(cache.high(i, k), (CROP_PX, CROP_PX, 3)).reshape(-1, CROP_PX**2 * 3)
        for i in range(len(cache))
        for k in range(cache.levels(i))
    ]
    found = {window.tobytes() for part in windows for window in part}
    for batch in drawn(cache, 8, augment=False):
        assert all(crop.permute(1, 2, 0).numpy().tobytes() in found for crop in batch.high)


def test_the_same_seed_gives_the_same_crops_and_another_one_others(photos: Path) -> None:
    cache = cached(photos)
    first, again, other = drawn(cache, 5), drawn(cache, 5), drawn(cache, 5, seed=8)
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a.high, b.high) for a, b in zip(first, other, strict=True))
    assert not same(first[0], first[1])
    drawn(cache, 1, seed=2**64 + 5)  # a rollback may push it over the edge


def test_a_run_that_goes_on_sees_what_it_would_have_seen(photos: Path) -> None:
    cache = cached(photos)
    assert all(same(a, b) for a, b in zip(drawn(cache, 9)[4:], drawn(cache, 5, first_step=4), strict=True))


@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_share_the_batch_of_one(photos: Path, world: int) -> None:
    cache = cached(photos)
    whole = drawn(cache, 3, batch=8)
    fractions = [drawn(cache, 3, batch=8 // world, rank=rank, world=world) for rank in range(world)]
    for step in range(3):
        assert torch.equal(torch.cat([fraction[step].high for fraction in fractions]), whole[step].high)


def test_every_picture_is_met_once_before_any_is_met_again(photos: Path) -> None:
    for seed in range(6):  # each picture in one grey of its own
        put(photos / f"{seed}.png", np.full((40, 48, 3), 40 * seed, np.uint8))
    met = [int(crop[0, 0, 0]) // 40 for b in drawn(cached(photos, min_std=0), 12, batch=2) for crop in b.high]
    rounds = [met[at : at + 6] for at in range(0, 24, 6)]
    assert all(sorted(each) == list(range(6)) for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1


def test_all_eight_moves_occur_and_are_the_square_s(tmp_path: Path) -> None:
    square = pixels(0, CROP_PX, CROP_PX)
    put(tmp_path / "one" / "a.png", square)
    moves = {np.rot90(side, augment).tobytes() for side in (square, square[:, ::-1]) for augment in range(4)}
    seen = {crop.permute(1, 2, 0).numpy().tobytes() for b in drawn(cached(tmp_path / "one"), 32) for crop in b.high}
    assert seen == moves
    assert len(moves) == 8


@pytest.mark.parametrize("augment", [True, False])
def test_pairs_are_cut_and_moved_alike(tmp_path: Path, augment: bool) -> None:
    for seed in range(3):
        high = pixels(seed, 41, 50)
        put(tmp_path / "high" / f"{seed}.png", high)
        # Blocks of one colour, so that any move of the pair keeps low[y, x] == high[2y, 2x].
        put(tmp_path / "high" / f"{seed}.png", np.repeat(np.repeat(high[:20, :24], 2, axis=0), 2, axis=1))
        put(tmp_path / "low" / f"{seed}.png", np.ascontiguousarray(high[:20, :24]))
    batches = drawn(cached(tmp_path / "high", low_dirs=(str(tmp_path / "low"),)), 10, augment=augment)
    for batch in batches:
        assert batch.low is not None
        assert batch.low.shape == (4, 3, CROP_PX // 2, CROP_PX // 2)
        assert torch.equal(batch.high[:, :, ::2, ::2], batch.low)
        assert torch.equal(batch.high[:, :, 1::2, 1::2], batch.low)
    assert len({batch.high.numpy().tobytes() for batch in batches}) == 10


def test_the_last_row_and_column_are_reached(tmp_path: Path) -> None:
    picture = pixels(0, CROP_PX + 1, CROP_PX + 1)
    put(tmp_path / "one" / "a.png", picture)
    crops = [
        crop.permute(1, 2, 0).numpy() for b in drawn(cached(tmp_path / "one"), 16, augment=False) for crop in b.high
    ]
    corners = {crop.tobytes() for crop in crops}
    expected = {np.ascontiguousarray(picture[y:, x:][:CROP_PX, :CROP_PX]).tobytes() for y in (0, 1) for x in (0, 1)}
    assert corners == expected


def test_batches_are_made_ahead_and_waiting_is_counted(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    cut = data_module._move

    def slow(*args: Any) -> None:
        made.append(1)
        time.sleep(0.01)
        cut(*args)

    monkeypatch.setattr(data_module, "_move", slow)
    crops = Crops(cached(photos), seed=0, batch=1, crop_px=CROP_PX, scale=2, augment=True)
    next(crops)
    assert crops.wait_s > 0.005
    time.sleep(0.2)
    assert len(made) >= 1 + data_module._AHEAD - 1
    before_s = crops.wait_s
    next(crops)
    assert crops.wait_s - before_s < before_s
    crops.close()


def test_what_goes_wrong_in_a_thread_is_raised_by_next(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(data_module, "_move", broken)
    crops = Crops(cached(photos), seed=0, batch=1, crop_px=CROP_PX, scale=2, augment=True)
    with pytest.raises(OSError, match="the disk is gone"):
        next(crops)
    crops.close()
