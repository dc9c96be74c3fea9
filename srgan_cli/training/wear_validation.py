"""The quality of learned wear: numbers beside those of real worn pictures, and a sheet of both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from srgan_cli.comparison.sheet import SheetRow, draw_sheet
from srgan_cli.dataset.degradation import bicubic_down
from srgan_cli.dataset.draws import generator as draws_for
from srgan_cli.dataset.low_pictures import to_pixels, to_tensor
from srgan_cli.dataset.pictures import read_pixels
from srgan_cli.dataset.scan import Picture, Scan
from srgan_cli.dataset.wear import RandomInputs, random_inputs
from srgan_cli.errors import PictureError, WeightsError
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.imaging.image import Pixels
from srgan_cli.networks.generators import Generator
from srgan_cli.training.adaptation import MARGIN_PX, Adaptation, inner
from srgan_cli.training.run import Run, make_generator
from srgan_cli.training.steps import verdicts_of
from srgan_cli.training.validation import ValidationPair, middle
from srgan_cli.training.wear_numbers import Appearance, WearNumbers, appearance_of

_DRAWS = 0x4C6F6F6B  # a Philox key, like those of `adaptation`
_MAX_REAL = 24  # number of worn pictures measured
_MAX_PX = 192  # side of the middle of a worn picture
_SEEDS = 4
_JUDGED = 6  # number of pictures for measurements with networks
_NOISE = 2 / 255
_HONEST_GAIN = 2.0  # how strongly a network that hides nothing may amplify such noise: it sharpens
_SHOWN_PX = 192  # side of the high pictures on the sheet
_WORN, _NOW, _BEFORE = "worn by F", "G(real worn)", "G before"
COLUMNS: Mapping[str, str] = {
    "high": "a sharp picture",
    "bicubic low": "downscaled",
    _WORN: "as it was learned",
    "real worn": "another picture, of yours",
    _NOW: "enlarged now",
    _BEFORE: "enlarged before adapting",
}


class WearValidation:
    """Held-out pictures, and some real worn ones. `pairs` are worn again each time, since the wearer changes."""

    def __init__(self, run: Run, adaptation: Adaptation, scan: Scan, pairs: Sequence[ValidationPair]) -> None:
        self._adaptation, self._scale = adaptation, run.generator.scale
        self._given = list(pairs)
        self._paired = [picture.low is not None for picture in scan.val]
        # Pictures with the most structure first, for the sheet.
        self._real = sorted(_middles(scan.unlabelled), key=lambda pixels: -float(pixels.std()))
        self._real_appearance = appearance_of(self._real)
        self._before = _before(run)

    # --------------------------------------------------------------------------------------------------- results of F

    def pairs(self) -> list[ValidationPair]:
        """The held-out pictures with low ones made by the current wearer; with their own, if they have any."""
        return [
            pair if paired else ValidationPair(pair.name, to_pixels(self._worn(pair.high, index)), pair.high)
            for index, (pair, paired) in enumerate(zip(self._given, self._paired, strict=True))
        ]

    @torch.no_grad()
    def _worn(self, high: Pixels, number: int) -> Tensor:
        """(H, W, 3) -> (1, 3, H / scale, W / scale), always the same for the same wearer."""
        source = draws_for(self._adaptation.seed, _DRAWS, number)
        picture = to_tensor(high).to(self._device)
        return self._adaptation.worn(self._adaptation.ema, bicubic_down(picture, self._scale), picture, source)

    @property
    def _device(self) -> torch.device:
        return self._adaptation.ema.blur.device

    # -------------------------------------------------------------------------------------------------------- numbers

    def numbers(self, run: Run) -> WearNumbers:
        """The numbers of the current wearer, with the run's generator."""
        highs = [middle(pair.high, _MAX_PX * self._scale, self._scale) for pair in self._given]
        made = [to_pixels(self._worn(high, index)) for index, high in enumerate(highs)]
        some = highs[:_JUDGED]
        return WearNumbers(
            real=self._real_appearance,
            made=appearance_of([one for one in made if min(one.shape[:2]) >= 16]) if made else Appearance(),
            colour_shift=_mean([_colour_shift(high, low) for high, low in zip(highs, made, strict=True)]),
            variation=_mean([self._variation(high) for high in some]),
            accuracy=self._accuracy(made[:_JUDGED]),
            hidden_db=_mean([self._hidden_db(run, high, low) for high, low in zip(some, made, strict=False)]),
            returned_db=_mean([self._returned_db(run, real) for real in self._some_real()]),
        )

    @torch.no_grad()
    def _variation(self, high: Pixels) -> float:
        """Without codecs, which would give each draw another grid."""
        picture = to_tensor(high).to(self._device)
        low = bicubic_down(picture, self._scale)
        height, width = low.shape[2:]
        results = [
            self._adaptation.ema(low, picture, random_inputs([seed], height, width, low.device)).worn
            for seed in range(_SEEDS)
        ]
        return float(torch.cat(results).std(dim=0).square().mean().sqrt() * 255.0)

    @torch.no_grad()
    def _accuracy(self, made: Sequence[Pixels]) -> float:
        real = [one for one in self._some_real() if _even(one).size]
        if not made or not real:
            return math.nan
        discriminator = self._adaptation.discriminator
        ours, theirs = (
            torch.cat([discriminator(self._judged(one)).logits.flatten() for one in pictures])
            for pictures in (made, real)
        )
        return float(verdicts_of(theirs, ours, self._adaptation.settings.objective).accuracy)

    def _judged(self, low: Pixels) -> Tensor:
        """Without its border, where it is large enough, as the discriminator is taught."""
        picture = to_tensor(_even(low)).to(self._device)
        return inner(picture) if min(picture.shape[2:]) > 4 * MARGIN_PX else picture

    def _some_real(self) -> list[Pixels]:
        return self._real[:: max(1, len(self._real) // _JUDGED)][:_JUDGED]

    # What is hidden is faint, so that faint noise destroys it (Chu et al. 2017, section 4). Noise also costs an honest
    # network something: as much is granted, or clean pictures would look as if they hid something.

    def _hidden_db(self, run: Run, high: Pixels, low: Pixels) -> float:
        """In the wearer's results, for the generator."""
        worn = to_tensor(low).to(self._device)
        plain, disturbed = (_mse(_enlarged(run.ema, one, run), high) for one in (worn, _disturbed(worn)))
        return _decibels(disturbed, plain + (_HONEST_GAIN * _NOISE) ** 2)

    @torch.no_grad()
    def _returned_db(self, run: Run, real: Pixels) -> float:
        """In the generator's results, for the wearer, whose grain and codecs are left out."""
        large = _enlarged(run.ema, to_tensor(real).to(self._device), run)
        noisy = _disturbed(large)
        plain, disturbed = (_mse(self._certain(one), real) for one in (large, noisy))
        downscaled = float((bicubic_down(noisy, self._scale) - bicubic_down(large, self._scale)).square().mean())
        return _decibels(disturbed, plain + downscaled)

    def _certain(self, high: Tensor) -> Tensor:
        """What the wearer makes of `high` (1, 3, H, W) by no chance, and no codec."""
        low = bicubic_down(high, self._scale)
        one = random_inputs([0], low.shape[2], low.shape[3], low.device)
        worn: Tensor = self._adaptation.ema(low, high, RandomInputs(one.code * 0, one.grain * 0)).worn
        return worn

    # ---------------------------------------------------------------------------------------------------------- sheet

    def sheet(self, run: Run, count: int, *, learned: bool = True) -> Pixels | None:
        """A row for each of `count` pictures, with the columns `COLUMNS` as far as available and `learned`."""
        rows = [self._row(run, index) for index in range(min(count, len(self._given), len(self._real)))]
        hidden = set() if learned else {_WORN, _NOW}
        known = {name for row in rows for name in row.cells} - hidden
        columns = {name: about for name, about in COLUMNS.items() if name in known}
        return draw_sheet(columns, rows, zoom_percent=100) if rows else None

    def _row(self, run: Run, index: int) -> SheetRow:
        pair, scale = self._given[index], self._scale
        high = middle(pair.high, _SHOWN_PX, scale)
        small = bicubic(high, high.shape[1] // scale, high.shape[0] // scale)
        real = middle(self._real[index], _SHOWN_PX // scale, 1)
        low = to_tensor(real).to(self._device)
        cells = {
            "high": high,
            "bicubic low": _as_large(small, scale),
            _WORN: _as_large(to_pixels(self._worn(high, index)), scale),
            "real worn": _as_large(real, scale),
            _NOW: to_pixels(_enlarged(run.ema, low, run)),
        }
        if self._before is not None:
            cells[_BEFORE] = to_pixels(_enlarged(self._before, low, run))
        return SheetRow(pair.name, "", pair.low, cells)


def _before(run: Run) -> Generator | None:
    """The model that the run started from, if it still exists."""
    if run.config.init is None:
        return None
    try:
        return make_generator(run.config).to(run.device).eval()
    except WeightsError:
        return None


def _middles(pictures: Sequence[Picture]) -> list[Pixels]:
    some = pictures[:: max(1, len(pictures) // _MAX_REAL)][:_MAX_REAL]
    found = []
    for picture in some:
        try:
            found.append(middle(read_pixels(picture.path), _MAX_PX, 1))
        except PictureError:  # it was readable earlier; the sheet is useful without it
            continue
    return found


def _even(pixels: Pixels) -> Pixels:
    """Crop to sides that the discriminator accepts."""
    height, width = (side // 2 * 2 for side in pixels.shape[:2])
    return pixels[:height, :width]


def _as_large(low: Pixels, scale: int) -> Pixels:
    """Enlarged by repeating pixels."""
    return np.ascontiguousarray(low.repeat(scale, axis=0).repeat(scale, axis=1))


def _enlarged(network: Generator, low: Tensor, run: Run) -> Tensor:
    training = network.training
    network.eval()
    try:
        with torch.inference_mode(), run.autocast():
            result: Tensor = network(low.contiguous(memory_format=torch.channels_last))
            return result.float()
    finally:
        network.train(training)


def _disturbed(pictures: Tensor) -> Tensor:
    dice = torch.Generator().manual_seed(0)
    return pictures + torch.randn(pictures.shape, generator=dice).to(pictures.device) * _NOISE


def _mse(result: Tensor, truth: Pixels) -> float:
    return float((result.clamp(0, 1) - to_tensor(truth).to(result.device)).square().mean())


def _decibels(error: float, expected: float) -> float:
    """By how much an error is larger than was to be expected; 0 where it is not."""
    return max(0.0, 10.0 * math.log10(max(error, 1e-10) / max(expected, 1e-10)))


def _colour_shift(high: Pixels, low: Pixels) -> float:
    """The same measure as in `picture_numbers` for results and their input."""
    return float(np.max(np.abs(high.mean(axis=(0, 1)) - low.mean(axis=(0, 1)))))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
