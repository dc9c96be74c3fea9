"""Which pictures are used for training, alone and in pairs, and why others are not."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srgan_cli.dataset import scan as scan_module
from srgan_cli.dataset.crops import Scan, read_pixels, scan
from srgan_cli.dataset.pictures import SUFFIXES, examine
from srgan_cli.errors import NothingToDoError, SettingsError
from srgan_cli.wording import are
from tests.dataset.photos import CROP_PX, names, pair, pixels, put, settings


def looked(folder: Path, *, scale: int = 2, crop_px: int = CROP_PX, **changes: Any) -> Scan:
    return scan(settings(folder, **changes), scale=scale, crop_px=crop_px)


def reasons(result: Scan) -> dict[str, str]:
    return {refusal.path.name: refusal.kind for refusal in result.refused}


# ----------------------------------------------------------------------------------------------------------------- scan


def test_a_folder_is_shared_out(photos: Path) -> None:
    result = looked(photos, val_fraction=0.5)
    assert not result.refused
    assert sorted(names(result.train) + names(result.val)) == [f"{n}.png" for n in range(6)]
    assert result.val
    assert result.split == f"{len(result.val)} of 6 {are(len(result.val))} held out, chosen by a hash of their pixels"
    assert {(picture.width, picture.height, picture.low) for picture in result.train} == {(48, 40, None)}


def test_at_least_one_and_at_most_val_max_are_held_out(photos: Path) -> None:
    assert len(looked(photos, val_fraction=1e-9).val) == 1
    assert len(looked(photos, val_fraction=0.5, val_max=1).val) == 1
    assert looked(photos, val_fraction=0).val == ()


@pytest.mark.parametrize("count", [2, 3])
def test_one_picture_is_always_left_to_learn_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    for seed in range(count):
        put(tmp_path / "few" / f"{seed}.png", pixels(seed))
    # as if all digests were below the fraction
    found = {one.path: dataclasses.replace(examine(one.path), digest=f"{number:032x}")
             for number, one in enumerate(looked(tmp_path / "few", val_fraction=0).train)}  # fmt: skip
    monkeypatch.setattr(scan_module, "examine", found.__getitem__)
    result = looked(tmp_path / "few", val_fraction=0.5, cache_dir=str(tmp_path / "other"))
    assert (len(result.train), len(result.val)) == (1, count - 1)


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
        (lambda folder: put(folder / "a.txt", pixels(0), format="PNG"), "have other extensions than"),
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
        f"the same picture as {photos / 'val' / 'a.png'}, which is held out for validation"
    ]


def test_nothing_is_looked_at_twice(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def counted(path: Path) -> Any:
        seen.append(path.name)
        return examine(path)

    monkeypatch.setattr(scan_module, "examine", counted)
    first = looked(photos)
    assert len(seen) == 6
    assert looked(photos) == first
    assert len(seen) == 6
    put(photos / "3.png", pixels(33, height=41))
    looked(photos)
    assert seen[6:] == ["3.png"]


def test_what_was_examined_before_ctrl_c_is_not_examined_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(done: int, _total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(settings(photos), scale=2, crop_px=CROP_PX, advance=interrupt)
    remembered = json.loads((photos.parent / "cache" / scan_module._MEMORY).read_text())
    assert len(remembered) >= 4


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
