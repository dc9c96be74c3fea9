"""Makes the low picture of a training pair from the high one: `sample` draws the parameters, `apply` uses them.

`sample` draws the parameters for one crop, as frozen plain values. `apply` is pure: the same values give the same
picture, bit-identical on a CPU, whatever else is in the batch. So a run can be resumed, and divided among processes,
without saving a random state.

`bicubic` is the standard for published ×4 results. It equals `imaging.bicubic`, and thus MATLAB's `imresize`.

`learned` uses a wearer (`wear`), which was trained on worn pictures: `srgan train --unpaired-lr-dir`.

`photo` imitates what happens to a picture in a camera and when it is shared: blur, resizing, noise and compression,
twice (the second-order model of Real-ESRGAN, X. Wang et al., 2021, arXiv:2107.10833, section 3). Unlike there, every
crop has its own parameters, the strengths are configurable and milder, and the codecs are real ones. It takes 1 to 2 ms
per crop of 128 px on one core.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from srgan_cli.dataset import wear_files
from srgan_cli.dataset.codecs import BLOCK_PX, Compression, Mapper, all_through_codecs, mapper
from srgan_cli.dataset.kernels import (
    FILTERS,
    Blur,
    Filter,
    Ringing,
    along_both_axes,
    blurred,
    gaussian_matrix,
    resize_matrix,
    resized,
)
from srgan_cli.dataset.wear import compressed, drawn_compression, random_inputs, without_colours
from srgan_cli.dataset.wear_header import refuse_other_scale
from srgan_cli.training_data_config import DegradationSettings

_TOP = 255.0
_STREAM = 0x6465_6772  # separates these random numbers from others with the same seed, step and index
_MIN_QUALITY = 10  # below it a JPEG loses its colours


@dataclass(frozen=True)
class SensorNoise:
    """Gaussian noise of variance `sigma`² + `shot` × level, with levels 0 … 255; `grey`: the same in all channels.

    The second term is shot noise with 1 / `shot` photons per level: Poisson's, in its normal approximation, which is
    fifteen times as fast and differs only in the deepest shadows.
    """

    sigma: float
    shot: float
    grey: bool
    seed: int


@dataclass(frozen=True)
class Round:
    """One pass from lens to file. `factor` is relative to the high picture; None gives the low picture's size.

    `ringing` is applied last, before the compression or (`rings_after`) after it.
    """

    blur: Blur | Ringing | None
    factor: float | None
    filter: Filter
    noise: SensorNoise | None
    compression: Compression | None
    ringing: Ringing | None = None
    rings_after: bool = False


@dataclass(frozen=True)
class Worn:
    """Worn by a wearer: `name` is the setting that names it; `seed` determines its grain and which of its blurs is
    used."""

    name: str
    seed: int
    compression: Compression | None


@dataclass(frozen=True)
class Degradation:
    """The degradation of one crop: some rounds, or a learned wear instead. The last round, if any, has no `factor`."""

    rounds: tuple[Round, ...]
    worn: Worn | None = None

    BICUBIC: ClassVar[Degradation]  # bicubic downscaling only


Degradation.BICUBIC = Degradation(())


# --------------------------------------------------------------------------------------------------------------- sample


def rng_for(seed: int, step: int, index: int) -> np.random.Generator:
    """The random generator for crop `index` of the whole batch over all processes, at `step`; stateless, in any order.

    Philox is counter-based (J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), so any
    position in its sequence is reached at once. The lower two of the counter's four words are left for the draws
    themselves.
    """
    key = np.array([seed & 0xFFFF_FFFF_FFFF_FFFF, _STREAM], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, index, step]))


def sample(settings: DegradationSettings, rng: np.random.Generator) -> Degradation:
    """Draw the parameters for one crop. Takes nothing from `rng` for settings that are not random."""
    if settings.kind == "bicubic" or settings.strength == 0 or rng.random() < settings.clean_fraction:
        return Degradation.BICUBIC
    if settings.kind == "learned":
        return Degradation((), _sample_wear(settings.wear or "", rng))
    last = settings.rounds - 1
    return Degradation(tuple(_sample_round(settings, rng, last=i == last) for i in range(settings.rounds)))


def _sample_wear(name: str, rng: np.random.Generator) -> Worn:
    seed = int(rng.integers(2**63))
    return Worn(name, seed, drawn_compression(wear_files.opened(name).signs, rng))


def _sample_round(settings: DegradationSettings, rng: np.random.Generator, *, last: bool) -> Round:
    # At a strength below 1 the sizes move towards 1 as everything else moves towards 0; above 1 they stay in their
    # range.
    factor = None if last else _log_uniform(rng, settings.resize) ** min(settings.strength, 1.0)
    softness = settings.last_blur if last and settings.rounds > 1 else 1.0
    return Round(
        blur=_sample_blur(settings, softness, rng) if rng.random() < settings.blur_fraction else None,
        factor=factor,
        filter=FILTERS[rng.integers(len(FILTERS))],
        noise=_sample_noise(settings, rng) if rng.random() < settings.noise_fraction else None,
        compression=_sample_compression(settings, rng) if rng.random() < settings.compression_fraction else None,
        # A fraction of 0 draws nothing, so that a seed gives the same with and without this part.
        ringing=_sample_ringing(settings, rng) if last and _chance(rng, settings.final_ringing_fraction) else None,
        rings_after=last and settings.final_ringing_fraction > 0 and rng.random() < 0.5,
    )


def _chance(rng: np.random.Generator, fraction: float) -> bool:
    """True for `fraction` of the draws. Takes nothing from `rng` if that is 0."""
    return fraction > 0 and rng.random() < fraction


def _sample_ringing(settings: DegradationSettings, rng: np.random.Generator) -> Ringing | None:
    cutoff = 1 - settings.strength * (1 - rng.uniform(*settings.ringing_cutoff))
    radius_px = int(rng.integers(3, 11))  # kernels of 7 to 21 px, as in Real-ESRGAN's published settings
    return Ringing(max(cutoff, 0.1), radius_px) if cutoff < 0.99 else None


def _sample_blur(settings: DegradationSettings, softness: float, rng: np.random.Generator) -> Blur | Ringing | None:
    if _chance(rng, settings.ringing_fraction):
        return _sample_ringing(settings, rng)
    sigma_px = settings.strength * softness * rng.uniform(*settings.blur_px)
    angle = rng.uniform(0, math.pi)
    if sigma_px < 0.1:  # invisible, and a Gaussian of 0 would divide by it
        return None
    form = rng.random()
    if form < 0.4:
        return Blur("gaussian", sigma_px)
    if form < 0.7:
        shape = 1.0 if form < 0.6 else _log_uniform(rng, (0.5, 3.0))
        return Blur("gaussian", sigma_px, angle, narrow=rng.uniform(0.3, 1.0), shape=shape)
    return Blur("lens", sigma_px) if form < 0.85 else Blur("motion", sigma_px, angle)


def _sample_noise(settings: DegradationSettings, rng: np.random.Generator) -> SensorNoise:
    sigma = settings.strength * _log_uniform(rng, settings.noise)
    shot = settings.strength**2 * _log_uniform(rng, settings.poisson)
    even = rng.random() < 0.5  # signal-independent, or shot noise
    return SensorNoise(
        sigma=sigma if even else 0.0,
        shot=0.0 if even else shot,
        grey=rng.random() < settings.grey_noise_fraction,
        seed=int(rng.integers(2**63)),
    )


def _sample_compression(settings: DegradationSettings, rng: np.random.Generator) -> Compression:
    quality = _scaled_quality(rng.uniform(*settings.jpeg_quality), settings.strength)
    x, y = rng.integers(BLOCK_PX, size=2).tolist()
    return Compression(
        codec="WEBP" if rng.random() < settings.webp_fraction else "JPEG",
        quality=round(quality),
        halved_chroma=rng.random() < 0.7,  # the default of most programs
        grid_px=(x, y),
    )


def _scaled_quality(quality: float, strength: float) -> float:
    """The quality whose quantiser steps are `strength` times as large, on libjpeg's scale (`jpeg_quality_scaling`)."""
    steps = strength * (5000 / quality if quality < 50 else 200 - 2 * quality)  # in per cent of the standard's table
    scaled = 5000 / steps if steps > 100 else 100 - steps / 2
    return max(scaled, min(quality, _MIN_QUALITY))


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """Log-uniform, for quantities perceived by their ratio; a minimum of 0 counts as a hundredth of the maximum."""
    least, most = bounds
    return most * (least / most or 0.01) ** rng.random() if most else 0.0


# ---------------------------------------------------------------------------------------------------------------- apply


def apply(high: Tensor, values: Sequence[Degradation], scale: int) -> Tensor:
    """Each crop degraded with its own parameters: (N, 3, H, W) in [0, 1] -> (N, 3, H/scale, W/scale), on the same
    device.

    Both hold 8-bit pictures: multiples of 1/255. H and W must be multiples of `scale`. There is no gradient, and
    autocast has no effect inside. The codecs run on the host, in at most as many threads as PyTorch may use.
    """
    if len(values) != len(high):
        raise ValueError(f"expected one degradation per crop, not {len(values)} for {len(high)}")
    with torch.no_grad(), torch.autocast(high.device.type, enabled=False):
        if not any(value.rounds or value.worn for value in values):
            return _bicubic_8bit(high, scale)
        if high.device.type != "cpu":
            # Codecs need the host, and intermediate crops have different sizes: a GPU would wait for hundreds of
            # copies.
            return apply(high.cpu(), values, scale).to(high.device)
        clean = [i for i, value in enumerate(values) if not value.rounds and value.worn is None]
        worn = [(i, value.worn) for i, value in enumerate(values) if value.worn is not None]
        rough = [i for i, value in enumerate(values) if value.rounds]
        low = high.new_empty(len(high), 3, high.shape[2] // scale, high.shape[3] // scale)
        low[clean] = _bicubic_8bit(high[clean], scale)
        if worn:
            low[[i for i, _ in worn]] = _worn(high[[i for i, _ in worn]], [value for _, value in worn], scale).to(low)
        if rough:
            pictures = [high[i].float().contiguous() for i in rough]
            low[rough] = torch.stack(_photo(pictures, [values[i] for i in rough], scale)).to(low)
        return low


def _worn(high: Tensor, values: Sequence[Worn], scale: int) -> Tensor:
    """All with the same wearer, since they come from one setting; without colours if it was trained without them."""
    learned = wear_files.opened(values[0].name)
    refuse_other_scale(values[0].name, learned.scale, scale)
    high = without_colours(high.float()) if learned.grey else high.float()
    low = bicubic_down(high, scale)
    height, width = low.shape[2:]
    random = random_inputs([value.seed for value in values], height, width, low.device)
    worn: Tensor = learned.network(low, high, random).worn
    return compressed(without_colours(worn) if learned.grey else worn, [value.compression for value in values])


def _photo(pictures: list[Tensor], values: Sequence[Degradation], scale: int) -> list[Tensor]:
    """One by one, not as a batch, since they have different sizes after the first round."""
    height, width = pictures[0].shape[1:]
    with mapper(len(pictures)) as mapped:
        for rounds in zip_longest(*(value.rounds for value in values)):
            for i, one in enumerate(rounds):
                if one is not None:
                    factor = 1 / scale if one.factor is None else one.factor
                    size = (max(1, round(width * factor)), max(1, round(height * factor)))
                    pictures[i] = _blur_resize_noise(pictures[i], one, *size)
            _ring(pictures, rounds, after=False)
            _compress(pictures, [one.compression if one is not None else None for one in rounds], mapped)
            _ring(pictures, rounds, after=True)
    return [_rounded(picture * _TOP) / _TOP for picture in pictures]


def _blur_resize_noise(picture: Tensor, values: Round, width: int, height: int) -> Tensor:
    if values.blur is not None:
        picture = blurred(picture, values.blur)
    picture = resized(picture, width, height, values.filter).clamp_(0, 1)
    return picture if values.noise is None else _with_noise(picture, values.noise)


def _ring(pictures: list[Tensor], rounds: Sequence[Round | None], *, after: bool) -> None:
    """Replace those of `pictures` that have ringing before, or `after`, their compression."""
    for i, one in enumerate(rounds):
        if one is not None and one.ringing is not None and one.rings_after == after:
            pictures[i] = blurred(pictures[i], one.ringing).clamp_(0, 1)


def _with_noise(picture: Tensor, noise: SensorNoise) -> Tensor:
    generator = torch.Generator(picture.device).manual_seed(noise.seed)
    lit = picture.mean(dim=0, keepdim=True) if noise.grey else picture  # (1 or 3, H, W)
    normal = torch.randn(lit.shape, generator=generator, device=picture.device)
    deviation = (noise.sigma**2 + noise.shot * _TOP * lit).sqrt_() / _TOP
    # Clip on both sides if black or white is close on one side: clipping one side only would make shadows lighter, and
    # tint them, by up to ten levels.
    room = torch.minimum(picture, 1 - picture)
    return picture + torch.clamp(deviation * normal, -room, room)


def _compress(pictures: list[Tensor], values: Sequence[Compression | None], mapped: Mapper) -> None:
    """Replace those of `pictures` that are compressed."""
    chosen = [i for i, value in enumerate(values) if value is not None]
    pixels = [_rounded(pictures[i] * _TOP).byte().permute(1, 2, 0).cpu().numpy() for i in chosen]
    compressions = [value for value in values if value is not None]
    for i, result in zip(chosen, all_through_codecs(pixels, compressions, mapped), strict=True):
        pictures[i] = torch.from_numpy(result).to(pictures[i].device).permute(2, 0, 1).float() / _TOP


# -------------------------------------------------------------------------------------------------- bicubic, sharpening


def bicubic_down(high: Tensor, scale: int) -> Tensor:
    """(N, C, H, W) -> (N, C, H/scale, W/scale), neither rounded nor clipped, differentiable, in the dtype of `high`.

    H and W must be multiples of `scale`.
    """
    with torch.autocast(high.device.type, enabled=False):
        return along_both_axes(*_bicubic_operands(high, scale)).to(high.dtype)


def _bicubic_8bit(high: Tensor, scale: int) -> Tensor:
    pictures, rows, columns = _bicubic_operands(high, scale)
    halfway = _rounded(rows @ _rounded(pictures * _TOP))  # MATLAB rounds after each axis, rows first
    return (_rounded(halfway @ columns.T) / _TOP).to(high.dtype)


def _bicubic_operands(high: Tensor, scale: int) -> tuple[Tensor, Tensor, Tensor]:
    # On a GPU in fp64, which is not affected by TF32, so that ties round as in `imaging.bicubic`. A CPU's fp32
    # represents the sums of 8-bit levels exactly if the scale is a power of two, and MPS has no fp64.
    height, width = high.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"{width}x{height} px is not a multiple of the scale, {scale}")
    dtype = torch.float64 if high.device.type == "cuda" or high.dtype == torch.float64 else torch.float32
    rows = resize_matrix("bicubic", height, height // scale, dtype, high.device)
    columns = resize_matrix("bicubic", width, width // scale, dtype, high.device)
    return high.to(dtype), rows, columns


def _rounded(levels: Tensor) -> Tensor:
    """Rounded half up and clipped to 0 … 255, as everywhere; `torch.round` would round halves to even."""
    return (levels + 0.5).floor_().clamp_(0, _TOP)


def sharpened(high: Tensor, amount: float) -> Tensor:
    """The target for training with sharpening: an unsharp mask of `amount`, where there is something to sharpen.

    (N, 3, H, W) in [0, 1] -> the same. Radius (sigma 8 px) and threshold (10 levels, below which noise would be
    sharpened) are those of Real-ESRGAN (arXiv:2107.10833, section 3.4, and its published code), where `amount` is 0.5.
    """
    if amount == 0:
        return high
    with torch.autocast(high.device.type, enabled=False):
        pictures = high.float()
        detail = pictures - _soft(pictures)
        where = _soft((detail.abs() * _TOP > 10).float())  # softened, so that the mask has no visible edge
        return (pictures + amount * where * detail).clamp(0, 1).to(high.dtype)


def _soft(pictures: Tensor) -> Tensor:
    height, width = pictures.shape[-2:]
    rows, columns = (gaussian_matrix(n, 8.0, pictures.dtype, pictures.device) for n in (height, width))
    return along_both_axes(pictures, rows, columns)
