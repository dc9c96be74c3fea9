"""One picture, a mean, several methods side by side, the folders they come from, and the further metrics."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor

from srgan_cli.errors import NothingToDoError, SettingsError, WeightsError
from srgan_cli.evaluation import further, pairs
from srgan_cli.evaluation.evaluate import (
    Metric,
    bicubic_enlarger,
    consistency,
    evaluate,
    lanczos_enlarger,
    score,
    side_by_side,
)
from srgan_cli.evaluation.metrics import compare, psnr
from srgan_cli.imaging.bicubic import bicubic
from tests.upscaling.pictures import picture


def _smooth(height: int, width: int, channels: int = 3, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A picture that bicubic can follow."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, channels), dtype=np.uint8)
    return bicubic(coarse, width, height)


def _pairs(count: int = 2, channels: int = 3) -> list[tuple[str, Any, Any]]:
    highs = [_smooth(40, 48, channels, seed) for seed in range(count)]
    return [(f"{seed}.png", bicubic(high, 12, 10), high) for seed, high in enumerate(highs)]


# ------------------------------------------------------------------------------------------------------------ evaluate


def test_each_picture_is_scored_and_the_mean_is_over_them() -> None:
    given = _pairs(3)
    found = evaluate(bicubic_enlarger(4), iter(given), scale=4)
    assert [one.name for one in found.pictures] == ["0.png", "1.png", "2.png"]
    for one, (_, low, high) in zip(found.pictures, given, strict=True):
        assert one.scores == compare(bicubic(low, 48, 40), high, 4)
    assert found.mean["psnr_y_db"] == pytest.approx(np.mean([one.scores.psnr_y_db for one in found.pictures]))
    assert set(found.mean) == {*vars(found.pictures[0].scores), "consistency_db"}


def test_without_pictures_there_is_no_mean() -> None:
    assert evaluate(bicubic_enlarger(4), [], scale=4).mean == {}


def test_an_infinite_psnr_stays_infinite() -> None:
    [(name, low, high)] = _pairs(1)
    assert evaluate(lambda _low: high, [(name, low, high)], scale=4).mean["psnr_y_db"] == math.inf


def test_methods_side_by_side_get_the_very_same_pictures_once() -> None:
    taken = []

    def once() -> Any:
        for pair in _pairs(2):
            taken.append(pair[0])
            yield pair

    told = []
    found = side_by_side(
        {"a": bicubic_enlarger(4), "b": lanczos_enlarger(4)},
        once(),
        scale=4,
        on_result=lambda method, result, scores: told.append((method, scores.name, result.shape)),
    )
    assert taken == ["0.png", "1.png"]
    assert found["a"] == evaluate(bicubic_enlarger(4), _pairs(2), scale=4)
    assert told == [(method, name, (40, 48, 3)) for name in taken for method in "ab"]


def test_a_further_metric_that_has_no_number_for_a_picture_counts_without_it() -> None:
    metric = Metric("odd", lambda result, original: None if original[0, 0, 0] == original.max() else 7.0)
    [(_, _, high)] = _pairs(1)
    flat = np.full_like(high, 9)
    found = evaluate(bicubic_enlarger(4), [("a", flat[::4, ::4], flat), *_pairs(1)], scale=4, extra=[metric])
    assert "odd" not in found.pictures[0].values()
    assert found.mean["odd"] == found.pictures[1].values()["odd"] == 7.0


@pytest.mark.parametrize("channels", [1, 3])
def test_lanczos_keeps_the_channels(channels: int) -> None:
    low = _pairs(1, channels)[0][1]
    assert lanczos_enlarger(3)(low).shape == (30, 36, channels)


def test_consistency_is_the_distance_of_the_small_pictures() -> None:
    [(_, low, high)] = _pairs(1)
    result = np.clip(bicubic(low, 48, 40).astype(int) + 3, 0, 255).astype(np.uint8)
    small = bicubic(result, 12, 10)
    assert consistency(result, high, 4) == pytest.approx(psnr(small[1:-1, 1:-1], low[1:-1, 1:-1]))
    assert consistency(high, high, 4) == math.inf


def test_consistency_sees_a_shift_of_colour_and_not_what_vanishes_when_made_small() -> None:
    high = np.full((64, 64, 3), 120, np.uint8)
    shifted = high + np.array([8, 0, 0], np.uint8)
    grain = high.copy()
    grain[::2, ::2], grain[1::2, 1::2] = 140, 100
    assert consistency(shifted, high, 4) == pytest.approx(10 * math.log10(255**2 / (64 / 3)), abs=0.01)
    assert consistency(grain, high, 4) > 50 > psnr(grain, high)


def test_a_grey_original_and_a_coloured_result_can_be_compared() -> None:
    [(name, _, high)] = _pairs(1, channels=1)
    scores = score(name, np.repeat(high, 3, axis=2), high, scale=4)
    assert scores.scores.psnr_y_db == scores.consistency_db == math.inf


def test_evaluating_needs_neither_torch_nor_libvips() -> None:
    code = (
        "import sys; import srgan_cli.evaluation.evaluate, srgan_cli.evaluation.niqe, srgan_cli.evaluation.further; "
        "assert not {'torch', 'pyvips'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --------------------------------------------------------------------------------------------------------------- pairs


def _found(high: Path, low: Path | None, scale: int = 2) -> tuple[list[tuple[str, str | None]], tuple[str, ...]]:
    found = pairs.find_pairs(high, low, scale)
    return [(one.name, one.low.name if one.low else None) for one in found.files], found.missing


def test_pictures_are_found_below_and_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "deep/c.png", ".hidden.png", ".git/d.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    assert _found(tmp_path, None) == ([("a.jpg", None), ("b.png", None), ("deep/c.png", None)], ())


def test_small_pictures_are_matched_by_name(tmp_path: Path) -> None:
    for name in ("high/1.png", "high/2.png", "high/d/3.png", "high/4.png", "low/1.jpg", "low/2x2.png", "low/d/3.png"):
        picture(tmp_path / name)
    files, missing = _found(tmp_path / "high", tmp_path / "low")
    assert files == [("1.png", "1.jpg"), ("2.png", "2x2.png"), ("d/3.png", "3.png")]
    assert len(missing) == 1
    assert "4.png" in missing[0]


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (["high/a.png"], SettingsError, "--lr-dir .*low does not exist"),
        (["high", "low/a.png"], SettingsError, "--hr-dir .*high is a file"),
        (["high/a.png", "low/a.txt"], NothingToDoError, "no pictures in .*low"),
        (["high/a.png", "low/b.png"], NothingToDoError, "'b' there, and 'a' here"),
    ],
)
def test_folders_that_do_not_fit_are_refused(
    tmp_path: Path, make: list[str], error: type[Exception], says: str
) -> None:
    for name in make:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(error, match=says):
        pairs.find_pairs(tmp_path / "high", tmp_path / "low", 4)


def _read(tmp_path: Path, scale: int = 2, **files: Path | None) -> tuple[list[Any], list[str]]:
    told: list[str] = []
    given = pairs.read_pairs(
        [pairs.PairFiles("a", **cast(Any, files))],
        scale=scale,
        on_failure=told.append,
    )
    return list(given), told


def test_an_original_is_cropped_to_a_multiple_of_the_scale(tmp_path: Path) -> None:
    high = picture(tmp_path / "a.png", 33, 31)
    [(_, low, pixels)], told = _read(tmp_path, high=high)
    assert (pixels.shape, low.shape, told) == ((30, 32, 3), (15, 16, 3), [])
    np.testing.assert_array_equal(pixels, np.asarray(Pillow.open(high))[:30, :32])


def test_a_given_small_picture_is_used(tmp_path: Path) -> None:
    given = picture(tmp_path / "b.png", 16, 15)
    [(_, low, _)], _ = _read(tmp_path, high=picture(tmp_path / "a.png", 33, 30), low=given)
    np.testing.assert_array_equal(low, np.asarray(Pillow.open(given)))


@pytest.mark.parametrize(
    ("size", "low_size", "says"),
    [
        ((32, 32), (8, 8), "16x16 px.*--scale 4"),
        ((32, 32), (15, 16), r"should be 16x16 px$"),
        ((32, 13), None, "too small.*16x16 px"),
    ],
)
def test_sizes_that_do_not_match_are_told(
    tmp_path: Path, size: tuple[int, int], low_size: tuple[int, int] | None, says: str
) -> None:
    high = picture(tmp_path / "a.png", *size)
    low = None if low_size is None else picture(tmp_path / "b.png", *low_size)
    given, told = _read(tmp_path, high=high, low=low)
    assert given == []
    assert len(told) == 1
    assert re.search(says, told[0]), told


def test_pictures_become_eight_bits_without_alpha(tmp_path: Path) -> None:
    deep = np.array([[0, 128, 129, 65535]], np.uint16)
    Pillow.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(pairs.read_rgb(tmp_path / "deep.png")[..., 0], [[0, 0, 1, 255]])
    solid = np.full((3, 3, 4), 255, np.uint8)
    Pillow.fromarray(solid).save(tmp_path / "solid.png")
    assert pairs.read_rgb(tmp_path / "solid.png").shape == (3, 3, 3)
    solid[0, 0, 3] = 0
    Pillow.fromarray(solid).save(tmp_path / "holed.png")
    given, told = _read(tmp_path, high=tmp_path / "holed.png")
    assert (given, len(told)) == ([], 1)
    assert "transparent" in told[0]


# ------------------------------------------------------------------------------------------------------------- further


def test_without_the_package_lpips_and_dists_are_left_out_with_one_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(further, "find_spec", lambda _name: None)
    chosen = further.choose_metrics(None, vgg_weights=None)
    assert [metric.key for metric in chosen.metrics] == ["niqe"]
    assert [note.split(":")[0] for note in chosen.notes] == ["without vgg19", "without lpips and dists"]
    assert "[perceptual]" in chosen.notes[1]


@pytest.mark.parametrize("name", ["lpips", "dists"])
def test_what_was_asked_for_by_name_must_be_there(name: further.Name, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(further, "find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=rf"{name}: .*pip install '.*\[perceptual\]'"):
        further.choose_metrics([name], vgg_weights=None)


def _fake_torchmetrics(monkeypatch: pytest.MonkeyPatch, network: Callable[..., object]) -> None:
    lpip, dists = ModuleType("torchmetrics.image.lpip"), ModuleType("torchmetrics.functional.image.dists")
    lpip.LearnedPerceptualImagePatchSimilarity = network  # type: ignore[attr-defined]
    dists.DISTSNetwork = network  # type: ignore[attr-defined]
    for name in ("torchmetrics", "torchmetrics.image", "torchmetrics.functional", "torchmetrics.functional.image"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for module in (lpip, dists):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(further, "find_spec", lambda _name: object())


class _Difference(torch.nn.Module):
    """Stands for a network: takes (1, 3, H, W) in [0, 1], as those do."""

    def __init__(self, **_options: object) -> None:
        super().__init__()

    def forward(self, result: Tensor, original: Tensor) -> Tensor:
        assert result.shape == original.shape == (1, 3, 64, 80)
        assert result.min() >= 0
        assert result.max() <= 1
        return (result - original).mean()


def test_the_networks_of_torchmetrics_get_pictures_in_their_range(monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_torchmetrics(monkeypatch, _Difference)
    chosen = further.choose_metrics(["lpips", "dists"], vgg_weights=None)
    dark, bright = np.zeros((64, 80, 3), np.uint8), np.full((64, 80, 1), 255, np.uint8)
    assert {metric.key: metric.measure(bright, dark) for metric in chosen.metrics} == {"lpips": 1.0, "dists": 1.0}
    assert chosen.metrics[0].measure(dark[:60], dark[:60]) is None


def test_without_a_connection_they_are_left_out_and_the_reason_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(**_options: object) -> None:
        raise OSError("<urlopen error no route>")

    _fake_torchmetrics(monkeypatch, offline)
    chosen = further.choose_metrics(None, vgg_weights=None)
    assert "lpips and dists: the weights cannot be downloaded (<urlopen error no route>)" in chosen.notes[1]
    with pytest.raises(WeightsError, match="no route"):
        further.choose_metrics(["dists"], vgg_weights=None)


def test_vgg_weights_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="vgg19"):
        further.choose_metrics(None, vgg_weights=tmp_path / "missing.pth")
