"""NIQE: its distribution fit against samples of known shape, its features, its model, and its scores."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from srgan_cli.evaluation import niqe as module
from srgan_cli.evaluation.metrics import grey_plane
from srgan_cli.evaluation.niqe import NaturalModel, as_json, bundled_model, fit, niqe
from srgan_cli.evaluation.pairs import read_rgb
from srgan_cli.imaging.bicubic import bicubic

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def _photo() -> npt.NDArray[np.uint8]:
    return read_rgb(EXAMPLES / "coffee.png")


def _generalised(shape: float, width: float, count: int, seed: int) -> npt.NDArray[np.float64]:
    """Magnitudes with a density of exp(-(x / width) ** shape)."""
    return width * np.random.default_rng(seed).gamma(1 / shape, 1, count) ** (1 / shape)


@pytest.mark.parametrize(("shape", "left", "right"), [(2.0, 1.0, 1.0), (0.8, 0.3, 0.6), (1.0, 2.0, 0.5)])
def test_an_asymmetric_gaussian_is_found_again(shape: float, left: float, right: float) -> None:
    count = 400_000
    # Each side's share is in proportion to its width, so that the density has no step at 0.
    on_left = round(count * left / (left + right))
    samples = np.concatenate(
        [-_generalised(shape, left, on_left, 0), _generalised(shape, right, count - on_left, 1)]
    ).reshape(1, -1)
    found = [float(value[0]) for value in module._asymmetric_gaussian(samples)]
    mean = (right - left) * math.gamma(2 / shape) / math.gamma(1 / shape)
    assert found == pytest.approx([shape, left, right, mean], rel=0.03, abs=0.01)


def test_the_local_normalisation_is_the_papers() -> None:
    plane = np.random.default_rng(0).uniform(0, 255, (9, 9))
    y, x = np.mgrid[-3:4, -3:4]
    weights = np.exp(-(x * x + y * y) / (2 * (7 / 6) ** 2))
    weights /= weights.sum()
    window = plane[1:8, 1:8]
    mean = (weights * window).sum()
    deviation = math.sqrt((weights * (window - mean) ** 2).sum())
    normal, std = module._normalised(plane)
    assert std[4, 4] == pytest.approx(deviation)
    assert normal[4, 4] == pytest.approx((plane[4, 4] - mean) / (deviation + 1))


def test_there_are_36_features_of_each_block() -> None:
    features, sharpness = module._block_features(np.random.default_rng(0).uniform(0, 255, (200, 300)))
    assert features.shape == (2 * 3, 36)
    assert sharpness.shape == (6,)


def test_the_score_is_the_distance_of_two_gaussians() -> None:
    features, _ = module._block_features(grey_plane(_photo()))
    mean, covariance = features.mean(axis=0), np.cov(features, rowvar=False)
    apart = np.zeros(36)
    apart[3] = 0.5
    model = NaturalModel(mean + apart, np.eye(36) * 2 - covariance)  # the mean of the two is the identity
    assert niqe(_photo(), model) == pytest.approx(0.5)
    assert niqe(_photo(), NaturalModel(mean, np.eye(36))) == pytest.approx(0.0, abs=1e-6)


def test_what_spoils_a_photo_raises_its_score() -> None:
    photo = _photo()
    height, width = photo.shape[:2]
    small = bicubic(photo, width // 4, height // 4)
    noisy = photo + np.random.default_rng(0).normal(0, 20, photo.shape)
    block = cv2.imdecode(cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, 8])[1], cv2.IMREAD_COLOR)
    score = niqe(photo)
    assert score is not None
    assert block is not None
    for damaged in (bicubic(small, width, height), noisy.clip(0, 255).astype(np.uint8), block):
        worse = niqe(damaged)
        assert worse is not None
        assert worse > score + 1


@pytest.mark.parametrize("shape", [(95, 400, 3), (96, 96, 1), (192, 192, 1)])
def test_a_small_or_a_flat_picture_has_no_score(shape: tuple[int, int, int]) -> None:
    assert niqe(np.full(shape, 7, np.uint8)) is None


def test_a_grey_photo_scores_as_itself() -> None:
    grey = grey_plane(_photo()).astype(np.uint8)[..., None]
    assert niqe(grey) == pytest.approx(niqe(np.repeat(grey, 3, axis=2)))


def test_the_bundled_model_is_a_gaussian_and_small() -> None:
    model = bundled_model()
    assert model.mean.shape == (36,)
    np.testing.assert_array_equal(model.covariance, model.covariance.T)
    assert np.linalg.eigvalsh(model.covariance).min() > -1e-6
    assert Path(module.__file__).with_name("niqe.json").stat().st_size < 40_000


def test_a_fitted_model_survives_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    model = fit(rng.integers(0, 256, (96 * 5, 96 * 5, 1), dtype=np.uint8) for _ in range(2))
    (tmp_path / "niqe.json").write_text(as_json(model, "noise"), encoding="utf-8")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "niqe.py"))
    again = bundled_model.__wrapped__()
    np.testing.assert_allclose(again.mean, model.mean, rtol=1e-7)
    np.testing.assert_allclose(again.covariance, model.covariance, rtol=1e-7)


def test_too_few_blocks_are_not_fitted() -> None:
    with pytest.raises(ValueError, match="too few"):
        fit([_photo()])
    with pytest.raises(ValueError, match="too few"):
        fit([])
