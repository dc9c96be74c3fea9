"""A teacher's results: which pieces there are, how they are stored, and how a damaged file is repaired."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srgan_cli.dataset import taught as taught_module
from srgan_cli.dataset.cache import Cache, build_cache, remove_old
from srgan_cli.dataset.crops import Crops
from srgan_cli.dataset.pictures import Bytes
from srgan_cli.dataset.scan import scan, scan_unlabelled
from srgan_cli.dataset.taught import Allowance, Pieces, Taught, Teaching, teach
from srgan_cli.errors import InterruptedRunError, NothingToDoError, TrainingError
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.training_data_config import DataSettings, DegradationSettings

SCALE, CROP_PX = 2, 16
TEACHING = Teaching("somebody", SCALE, seed=0, piece_px=20, context_px=4, degradation=DegradationSettings())


def noise(folder: Path, sizes: list[tuple[int, int]], seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number, (width, height) in enumerate(sizes):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def cached(folder: Path, low: Path | None = None) -> Cache:
    settings = DataSettings(
        high_dirs=(str(folder),), low_dirs=(str(low),) if low else (), levels=(1.0,), val_fraction=0.0,
        cache_dir=str(folder.parent / "cache"),
    )  # fmt: skip
    found = scan(settings, scale=SCALE, crop_px=CROP_PX)
    return build_cache(found.train, settings, scale=SCALE, crop_px=CROP_PX)


def unlabelled(folder: Path) -> Cache:
    settings = DataSettings(levels=(1.0,), cache_dir=str(folder.parent / "cache"))
    found, _ = scan_unlabelled(settings, [str(folder)], min_px=CROP_PX // SCALE)
    return build_cache(found, settings, scale=1, crop_px=CROP_PX // SCALE)


@pytest.fixture
def pieces(tmp_path: Path) -> Pieces:
    return Pieces(cached(noise(tmp_path / "high", [(120, 90), (64, 100), (30, 34)])), None, TEACHING)


class Doubler:
    """Repeats pixels and inverts them, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, low: Bytes) -> Bytes:
        self.calls += 1
        result: Bytes = 255 - low.repeat(SCALE, 0).repeat(SCALE, 1)
        return result


def whole(found: Taught) -> None:
    """Every piece says what the teacher made of its low picture, and shows the original at the same place."""
    for number in range(len(found)):
        low, result, high = found.low(number), found.result(number), found.high(number)
        assert min(low.shape[:2]) >= CROP_PX // SCALE
        np.testing.assert_array_equal(result, 255 - low.repeat(SCALE, 0).repeat(SCALE, 1))
        assert high.shape == result.shape


# --------------------------------------------------------------------------------------------------------------- pieces


def test_a_piece_is_the_low_picture_of_its_place(pieces: Pieces, tmp_path: Path) -> None:
    for number in range(12):
        piece = pieces[number]
        high = pieces.cache.high(piece.picture)[piece.top * SCALE :, piece.left * SCALE :]
        high = high[: piece.height * SCALE, : piece.width * SCALE]
        np.testing.assert_array_equal(pieces.low(number), bicubic(high, piece.width, piece.height))
        rows, columns = piece.inner
        inner = high[rows.start * SCALE : rows.stop * SCALE, columns.start * SCALE : columns.stop * SCALE]
        np.testing.assert_array_equal(pieces.high(number), inner)


def test_context_is_cut_off_inside_a_picture_and_not_at_its_border(pieces: Pieces) -> None:
    seen = set()
    for number in range(60):
        piece = pieces[number]
        height, width = (side // SCALE for side in pieces.cache.high(piece.picture).shape[:2])
        assert (piece.height, piece.width) == (min(20, height), min(20, width))
        rows, columns = piece.inner
        assert rows.start == (4 if piece.top else 0)
        assert columns.stop == piece.width - (4 if piece.left + piece.width < width else 0)
        seen.add((piece.top > 0, piece.left + piece.width < width))
    assert len(seen) == 4


def test_pieces_follow_from_the_seed_and_meet_all_pictures_in_turn(pieces: Pieces) -> None:
    other = Pieces(pieces.cache, None, TEACHING)
    assert [other[n] for n in (7, 3)] == [pieces[n] for n in (7, 3)]  # whatever is asked for first
    assert all({pieces[3 * lap + n].picture for n in range(3)} == {0, 1, 2} for lap in range(5))
    later = Pieces(pieces.cache, None, replace(TEACHING, seed=1))
    assert [later[n] for n in range(9)] != [pieces[n] for n in range(9)]


def test_the_key_is_that_of_all_that_decides(pieces: Pieces) -> None:
    photo = DegradationSettings(kind="photo")
    changes: list[dict[str, Any]] = [
        {}, {"teacher": "else"}, {"seed": 1}, {"piece_px": 24}, {"context_px": 2}, {"degradation": photo}
    ]  # fmt: skip
    keys = [Pieces(pieces.cache, None, replace(TEACHING, **change)).key() for change in changes]
    assert len(set(keys)) == len(keys)
    assert keys[0] == pieces.key()


def test_small_pictures_that_are_given_are_taken_as_they_are(tmp_path: Path) -> None:
    high, low = noise(tmp_path / "high", [(80, 60)]), noise(tmp_path / "low", [(40, 30)], seed=1)
    paired = Pieces(cached(high, low), None, TEACHING)
    piece = paired[0]
    expected = np.asarray(Image.open(low / "0.png"))[piece.top :, piece.left :][:20, :20]
    np.testing.assert_array_equal(paired.low(0), expected)
    worse = Pieces(paired.cache, None, replace(TEACHING, degradation=DegradationSettings(kind="photo")))
    assert worse.key() == paired.key()  # nothing is degraded


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.3, 1.0])
def test_pictures_without_an_original_have_their_fraction(tmp_path: Path, fraction: float) -> None:
    high, worn = noise(tmp_path / "high", [(80, 60), (50, 50)]), noise(tmp_path / "worn", [(40, 44), (9, 60)], seed=1)
    mixed = Pieces(cached(high), unlabelled(worn), replace(TEACHING, unlabelled_fraction=fraction))
    drawn = [mixed[number] for number in range(200)]
    assert sum(not piece.labelled for piece in drawn) == pytest.approx(200 * fraction, abs=1)
    assert all((mixed.high(n) is None) == (not piece.labelled) for n, piece in enumerate(drawn[:20]))
    pictures = [np.asarray(Image.open(worn / name)) for name in ("0.png", "1.png")]
    for number, piece in enumerate(drawn[:40]):
        if not piece.labelled:
            expected = pictures[piece.picture][piece.top :, piece.left :][: piece.height, : piece.width]
            np.testing.assert_array_equal(mixed.low(number), expected)


def test_worn_pictures_are_not_refused_for_what_they_are(tmp_path: Path) -> None:
    folder = noise(tmp_path / "worn", [(40, 40), (7, 40)])
    Image.effect_noise((64, 64), 40).convert("RGB").save(folder / "blocks.jpg", quality=5)
    Image.new("RGB", (40, 40)).save(folder / "flat.png")
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    found, refused = scan_unlabelled(DataSettings(cache_dir=str(tmp_path)), [str(folder)], min_px=8)
    assert {picture.path.name for picture in found} == {"0.png", "blocks.jpg", "flat.png"}
    assert {one.path.name: one.kind for one in refused} == {"1.png": "too small", "copy.png": "duplicate"}
    with pytest.raises(NothingToDoError, match="no pictures of --unlabelled-dir are left to learn from: "):
        scan_unlabelled(DataSettings(cache_dir=str(tmp_path)), [str(folder)], min_px=500)


# ------------------------------------------------------------------------------------------------------------- the file


def test_what_is_kept_is_not_asked_for_again(pieces: Pieces, tmp_path: Path) -> None:
    teacher, told = Doubler(), []
    found = teach(pieces, teacher, tmp_path / "kept", Allowance(5), lambda done, total: told.append((done, total)))
    whole(found)
    assert (teacher.calls, len(found)) == (5, 5)
    assert told == [(n, 5) for n in range(1, 6)]
    again = teach(pieces, teacher, tmp_path / "kept", Allowance(5))
    assert teacher.calls == 5
    more = teach(pieces, teacher, tmp_path / "kept", Allowance(8))
    assert (teacher.calls, len(more), len(again)) == (8, 8, 5)
    whole(more)
    assert not found.low(0).flags.writeable


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "cut":
        data = data[: len(data) // 2]
    elif how == "flipped":
        data[len(data) // 2] ^= 1
    elif how == "zeros":
        data[: len(data) // 2] = bytes(len(data) // 2)
    else:
        data = bytearray()
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["cut", "flipped", "zeros", "emptied"])
def test_a_damaged_file_is_repaired(pieces: Pieces, tmp_path: Path, how: str) -> None:
    teacher = Doubler()
    found = teach(pieces, teacher, tmp_path, Allowance(9))
    path, before = found.path, found.path.read_bytes()
    del found
    damage(path, how)
    whole(teach(pieces, teacher, tmp_path, Allowance(9)))
    assert path.read_bytes() == before
    assert {"flipped": 10, "emptied": 18}.get(how, teacher.calls) == teacher.calls
    assert 9 < teacher.calls <= 18


def test_a_run_that_was_killed_leaves_what_it_has_made(pieces: Pieces, tmp_path: Path) -> None:
    def killed(low: Bytes) -> Bytes:
        if first.calls == 3:
            raise KeyboardInterrupt
        return first(low)

    first, second = Doubler(), Doubler()
    said = (
        rf"stopped while the teacher was working.*; its results so far, for 3 pieces, are kept in {tmp_path}, and the"
    )
    with pytest.raises(InterruptedRunError, match=said):
        teach(pieces, killed, tmp_path, Allowance(7))
    with pytest.raises(InterruptedRunError, match="before any step; nothing is lost, and the same command resumes"):
        teach(pieces, killed, tmp_path / "other", Allowance(7))
    whole(teach(pieces, second, tmp_path, Allowance(7)))
    assert second.calls == 4


class Time:
    """Each piece takes `piece_s`."""

    def __init__(self, piece_s: float) -> None:
        self.now_s, self.piece_s = 100.0, piece_s

    def __call__(self) -> float:
        return self.now_s

    def during(self, teacher: Doubler) -> Callable[[Bytes], Bytes]:
        def made(low: Bytes) -> Bytes:
            self.now_s += self.piece_s
            return teacher(low)

        return made


@pytest.mark.parametrize(("piece_s", "expected"), [(0.5, 20), (3.0, 3), (40.0, 1), (0.001, 64)])
def test_time_decides_how_many(pieces: Pieces, tmp_path: Path, piece_s: float, expected: int) -> None:
    time, teacher = Time(piece_s), Doubler()
    allowed = Allowance(seconds=10.0, most=64)
    found = teach(pieces, time.during(teacher), tmp_path, allowed, clock=time)
    assert len(found) == teacher.calls == expected
    assert time.now_s - 100.0 <= max(10.0, piece_s)
    again = teach(pieces, time.during(teacher), tmp_path, allowed, clock=time)
    # What is there counts: no more time is spent than telling how fast the teacher is.
    assert len(again) - len(found) <= 1
    assert teacher.calls <= expected + 1


def test_a_longer_run_gets_as_many_more_as_the_added_time_allows(pieces: Pieces, tmp_path: Path) -> None:
    time, teacher = Time(0.5), Doubler()
    first = teach(pieces, time.during(teacher), tmp_path, Allowance(seconds=5.0), clock=time)
    time.piece_s = 0.25
    more = teach(pieces, time.during(teacher), tmp_path, Allowance(seconds=2.0, begun=len(first)), clock=time)
    assert (len(first), len(more)) == (10, 18)
    more.path.unlink()  # what the run began with is made again, whatever time that takes
    again = teach(pieces, time.during(teacher), tmp_path, Allowance(seconds=2.0, begun=len(more)), clock=time)
    assert len(again) == 26


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(
    pieces: Pieces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, teacher = taught_module._make, Doubler()
    monkeypatch.setattr(taught_module, "_make", lambda *a: full() if a[2] == 4 else real(*a))
    with pytest.raises(TrainingError, match=r"the disk is full: the teacher's results .* teacher\.crops=N"):
        teach(pieces, teacher, tmp_path, Allowance(8))
    monkeypatch.setattr(taught_module, "_make", real)
    whole(teach(pieces, teacher, tmp_path, Allowance(8)))
    assert teacher.calls == 8


def test_what_will_not_fit_is_told_before_the_teacher_is_asked(
    pieces: Pieces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = pieces[7].end
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": needed - 1})())
    teacher = Doubler()
    with pytest.raises(TrainingError, match="the disk is full"):
        teach(pieces, teacher, tmp_path, Allowance(8))
    assert teacher.calls == 0
    some = teach(pieces, teacher, tmp_path, Allowance(seconds=1e9))  # no limit given: half of the free space
    assert 0 < len(some) < 8
    assert some.shortage == "full"
    assert not teach(pieces, teacher, tmp_path, Allowance(len(some))).shortage
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 0})())
    more = teach(pieces, teacher, tmp_path, Allowance(seconds=1e9, begun=len(some) + 1))  # as many as a run began with
    assert (len(more), more.shortage) == (len(some) + 1, "full")


def test_a_folder_that_cannot_be_written_to_is_told(pieces: Pieces, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"cannot be kept in .*file.*data\.cache_dir"):
        teach(pieces, Doubler(), tmp_path / "file" / "folder", Allowance(1))


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_what_is_kept_on_a_read_only_disk_is_used(
    pieces: Pieces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    teacher = Doubler()
    kept = teach(pieces, teacher, tmp_path, Allowance(6))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    monkeypatch.setattr(taught_module, "alone", refuse)
    for allowed, count in ((Allowance(6), 6), (Allowance(4), 4), (Allowance(seconds=1.0), 6)):
        found = teach(pieces, teacher, tmp_path, allowed)
        whole(found)
        assert (len(found), found.shortage) == (count, "read-only")
    for more in (Allowance(7), Allowance(seconds=1.0, begun=7)):
        with pytest.raises(TrainingError, match=r"cannot be kept in .*data\.cache_dir"):
            teach(pieces, teacher, tmp_path, more)
    assert teacher.calls == 6
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    damage(kept.path, "flipped")
    assert 0 < len(teach(pieces, teacher, tmp_path, Allowance(seconds=1.0))) < 6
    with pytest.raises(TrainingError, match=r"cannot be kept in .*data\.cache_dir"):
        teach(pieces, teacher, tmp_path / "nothing", Allowance(seconds=1.0))


def test_results_that_are_removed_meanwhile_are_a_sentence(pieces: Pieces, tmp_path: Path) -> None:
    folder, teacher = tmp_path / "kept", Doubler()

    def removed(low: Bytes) -> Bytes:
        shutil.rmtree(folder)
        return teacher(low)

    with pytest.raises(TrainingError, match="have been removed while they were being made; run the command again"):
        teach(pieces, removed, folder, Allowance(1))
    whole(teach(pieces, teacher, folder, Allowance(1)))


def test_two_at_once_make_it_once(pieces: Pieces, tmp_path: Path) -> None:
    teacher, found = Doubler(), []
    other = Pieces(pieces.cache, None, TEACHING)
    work = [
        threading.Thread(target=lambda p=p: found.append(teach(p, teacher, tmp_path, Allowance(6))))
        for p in (pieces, other)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert teacher.calls == 6
    for one in found:
        whole(one)
    assert [path.suffix for path in tmp_path.iterdir() if path.is_file()] == [".taught"]


def test_what_was_not_used_for_a_month_is_removed(pieces: Pieces, tmp_path: Path) -> None:
    found = teach(pieces, Doubler(), tmp_path, Allowance(1))
    remove_old(tmp_path)
    assert found.path.exists()
    os.utime(found.path, (1, 1))
    remove_old(tmp_path)
    assert not found.path.exists()


# ---------------------------------------------------------------------------------------------------------------- crops


def drawn(found: Taught, count: int, **options: Any) -> list[Any]:
    settings = {"seed": 0, "batch": 4, "crop_px": CROP_PX, "scale": SCALE, "augment": True, **options}
    crops = Crops(found.pieces.cache, taught=found, **settings)
    try:
        return [next(crops) for _ in range(count)]
    finally:
        crops.close()


def test_crops_of_pieces_show_the_same_in_all_three(pieces: Pieces, tmp_path: Path) -> None:
    nearest = Pieces(pieces.cache, None, TEACHING)
    found = teach(nearest, Doubler(), tmp_path, Allowance(9))
    seen = set()
    for batch in drawn(found, 12):
        assert batch.low.shape == (4, 3, CROP_PX // SCALE, CROP_PX // SCALE)
        assert (batch.taught == 255 - batch.low.repeat_interleave(SCALE, 2).repeat_interleave(SCALE, 3)).all()
        for low, high in zip(batch.low, batch.high, strict=True):
            blocks = high.float().unfold(1, SCALE, SCALE).unfold(2, SCALE, SCALE).mean(dim=(3, 4))
            correlation = np.corrcoef(blocks.flatten(), low.float().flatten())[0, 1]
            assert correlation > 0.8  # bicubic and box are not the same, but near
            seen.add(low.numpy().tobytes())
    assert len(seen) == 48


def test_two_processes_cut_what_one_cuts(pieces: Pieces, tmp_path: Path) -> None:
    found = teach(pieces, Doubler(), tmp_path, Allowance(5))
    (one,) = drawn(found, 1)
    parts = [drawn(found, 1, batch=2, rank=rank, world=2)[0] for rank in (0, 1)]
    for name in ("low", "high", "taught"):
        assert (np.concatenate([getattr(part, name) for part in parts]) == getattr(one, name).numpy()).all()


def test_where_there_is_no_original_the_teacher_stands_for_it(tmp_path: Path) -> None:
    high, worn = noise(tmp_path / "high", [(80, 60)]), noise(tmp_path / "worn", [(40, 44)], seed=1)
    mixed = Pieces(cached(high), unlabelled(worn), replace(TEACHING, unlabelled_fraction=1.0))
    found = teach(mixed, Doubler(), tmp_path, Allowance(3))
    for batch in drawn(found, 3):
        assert (batch.high == batch.taught).all()
