"""Still areas do not flicker; moving ones are the network's own result."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.flicker import flicker
from srgan_cli import EngineOptions, Upscaler
from srgan_cli.engine.rows import ArrayRows, RowSource
from srgan_cli.upscaling.stabilising import Stabiliser
from tests.faults import tiny_model

Pixels = np.ndarray[Any, Any]
SIDE, SCALE = 96, 4


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    return Upscaler(tiny_model("compact", SCALE), EngineOptions("cpu", "fp32", 32))


class Sharpening:
    """In the place of a network that draws texture: noise comes out of it several times as strong."""

    scale = SCALE
    chain = SimpleNamespace(blend_px=0, halo_px=1)

    def upscale_rows(self, source: RowSource, out: Pixels, *, on_rows: Any = None, origin: Any = None) -> None:
        low = source.read_rows(SIDE).astype(float)
        around = np.pad(low, ((1, 1), (1, 1), (0, 0)), mode="edge")
        mean = (around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:]) / 4
        out[:] = (low + 2 * (low - mean)).round().clip(0, 255).repeat(SCALE, 0).repeat(SCALE, 1).astype(out.dtype)

    def upscale(self, low: Pixels) -> Pixels:
        out = np.empty((SIDE * SCALE, SIDE * SCALE, 3), low.dtype)
        self.upscale_rows(ArrayRows(low), out)
        return out


def scene(noise: float, count: int, depth: int = 8) -> tuple[list[Pixels], list[Pixels]]:
    random = np.random.default_rng(3)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    base = np.stack([np.sin(rows / 5) * 60 + 120, np.cos(columns / 4) * 50 + 120, rows + 60.0], -1)
    made, places = [], []
    for number in range(count):
        disc = (rows - 20) ** 2 + (columns - 15 - 8 * number) ** 2 < 64
        frame = base.copy()
        frame[disc] = (230, 20, 20)
        frame = (frame + random.normal(0, noise, frame.shape)).round().clip(0, 255)
        made.append(frame.astype(np.uint8) if depth == 8 else (frame * 257).astype(np.uint16))
        places.append(disc)
    return made, places


def steadied(frames: list[Pixels], upscaler: Any) -> list[Pixels]:
    stabiliser, results = Stabiliser(), []
    for low in frames:
        out = np.empty((SIDE * SCALE, SIDE * SCALE, low.shape[2]), low.dtype)
        stabiliser.enlarge(low, upscaler, out, lambda: None)
        results.append(out)
    return results


def bicubic(frames: list[Pixels]) -> list[Pixels]:
    from PIL import Image as Pillow

    size = SIDE * SCALE, SIDE * SCALE
    return [np.asarray(Pillow.fromarray(low).resize(size, Pillow.Resampling.BICUBIC)) for low in frames]


@pytest.mark.parametrize("noise", [1.0, 2.0])
def test_noise_flickers_no_more_than_bicubic(noise: float) -> None:
    frames, places = scene(noise, 4)
    alone = [Sharpening().upscale(low) for low in frames]
    limit = 1.2 * flicker(bicubic(frames), places)
    assert flicker(steadied(frames, Sharpening()), places) <= limit
    assert flicker(alone, places) > limit  # or this would show nothing


@pytest.mark.parametrize("depth", [8, 16])
def test_without_noise_every_frame_is_the_networks_own(upscaler: Upscaler, depth: int) -> None:
    frames, places = scene(0.0, 4, depth)
    unit = 1 if depth == 8 else 257
    for number, (made, low) in enumerate(zip(steadied(frames, upscaler), frames, strict=True)):
        alone = upscaler.upscale(low).astype(int)
        moving = (places[number] | places[max(0, number - 1)]).repeat(SCALE, 0).repeat(SCALE, 1)
        assert np.abs(made - alone)[moving].max() <= unit  # where something moves
    first, second = steadied(frames[:1] * 2, upscaler)
    assert np.array_equal(first, second)


def test_a_cut_is_a_new_beginning(upscaler: Upscaler) -> None:
    frames, _ = scene(0.0, 1)
    other = frames[0][::-1, ::-1].copy()
    made = steadied([frames[0], other, frames[0]], upscaler)
    assert np.abs(made[1].astype(int) - upscaler.upscale(other)).mean() < 0.5


def test_only_what_moves_is_computed(upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = Upscaler.upscale_rows

    def counting(self: Upscaler, source: Any, out: Pixels, **options: Any) -> None:
        sizes.append(out.size)
        real(self, source, out, **options)

    monkeypatch.setattr(Upscaler, "upscale_rows", counting)
    frames, _ = scene(0.0, 2)
    steadied([frames[0], frames[0], frames[1]], upscaler)
    assert len(sizes) == 2
    assert sizes[1] < sizes[0]
