"""A student compared with its teacher, on held-out pictures: how close, and how much faster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from srgan_cli.comparison.sheet import SheetRow, draw_sheet
from srgan_cli.engine.backends import choice
from srgan_cli.evaluation.evaluate import evaluate
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.imaging.image import Pixels
from srgan_cli.networks.features import VGGFeatures
from srgan_cli.networks.weights import load_model
from srgan_cli.training import validation
from srgan_cli.training.run import Run, make_features
from srgan_cli.training.steps import Autocast
from srgan_cli.training.teaching import Teacher, engine_options
from srgan_cli.training.validation import ValidationPair

_MAX_PICTURES = 8
_BUDGET_FRACTION = 0.03  # fraction of the run's length that may be spent on the teacher's results for held-out pictures
_SIDE_PX = 96  # maximum side of these, in low px
_SHOWN_PX = 192
_REPEATS = 3  # timed runs of the student, of which the fastest counts, since other programs use the machine too


@dataclass(frozen=True)
class Speeds:
    """Px of a low picture that each enlarges per second, on this device in its usual precision."""

    student: float
    teacher: float


class Likeness:
    """The middles of some held-out pictures, with the teacher's results as the reference.

    `gap_db`: how much further the teacher is from the originals than bicubic enlargement is, 0 if it is closer: a
    student that imitates its teacher may be as far from them.
    """

    def __init__(self, run: Run, teacher: Teacher, pairs: Sequence[ValidationPair]) -> None:
        self.teacher, self.scale = teacher, teacher.scale
        self._features = _features_at_hand(run)
        budget_s = run.config.budget_s
        self.taught: list[ValidationPair] = []
        self.originals: list[Pixels] = []
        began_s, self.piece_s = time.monotonic(), 0.0
        for pair in pairs[:_MAX_PICTURES]:
            elapsed_s = time.monotonic() - began_s
            if self.taught and budget_s and elapsed_s + self.piece_s > _BUDGET_FRACTION * budget_s:
                break
            self._add(pair)
            self.piece_s = (time.monotonic() - began_s) / len(self.taught)
        self.bicubic = validation.baseline(self.taught, self.scale).mean
        self.gap_db = self._gap_db()

    def _add(self, pair: ValidationPair) -> None:
        low, _, original = validation.sample_crop(pair, pair.high, self.scale, _SIDE_PX * self.scale)
        self.taught.append(ValidationPair(pair.name, low, self.teacher.of_pixels(low)))
        self.originals.append(original)

    def _gap_db(self) -> float:
        """Both are compared with the originals, on the same pictures."""
        if not self.taught:
            return 0.0
        truth = [ValidationPair(one.name, one.low, high) for one, high in zip(self.taught, self.originals, strict=True)]
        results = iter([one.high for one in self.taught])
        of_teacher = evaluate(
            lambda _: next(results), ((one.name, one.low, one.high) for one in truth), scale=self.scale
        )
        return max(0.0, validation.baseline(truth, self.scale).mean["psnr_y_db"] - of_teacher.mean["psnr_y_db"])

    def measure(self, run: Run, autocast: Autocast) -> tuple[dict[str, float], list[Pixels]]:
        """How close the student's moving average is, by metric; and its results."""
        found, results = validation.validate(run.ema, self.taught, run.device, autocast)
        return self._values(found.mean, results, run.autocast), results

    def measure_bicubic(self, run: Run) -> dict[str, float]:
        """How close bicubic enlargement is to the teacher's results."""
        results = [_enlarged(one, self.scale) for one in self.taught]
        return self._values(self.bicubic, results, run.autocast)

    def _values(self, found: Mapping[str, float], results: Sequence[Pixels], autocast: Autocast) -> dict[str, float]:
        values = {f"teacher_{name}": found[name] for name in ("psnr_y_db", "ssim_y")}
        if self._features is not None:
            distance = validation.perceptual_distance(self._features, self.taught, results, self.scale, autocast)
            values["teacher_perceptual"] = distance
        return values

    def speeds(self, run: Run, model: Path) -> Speeds:
        """Speed of the student in the file `model`, and of the teacher, in turn on the same picture."""
        student = load_model(model)
        backend = choice.choose(engine_options(run.config, run.device), [student])
        fast, low = Teacher(student, self.scale, backend, inline=True), self.taught[0].low
        fast.of_pixels(low)
        student_s = min(_seconds(lambda: fast.of_pixels(low)) for _ in range(_REPEATS))
        area_px = low.shape[0] * low.shape[1]
        return Speeds(area_px / student_s, area_px / _seconds(lambda: self.teacher.of_pixels(low)))

    def sheet(self, results: Sequence[Pixels], count: int) -> Pixels | None:
        """low | student | teacher | original, a row for each of the first `count` pictures."""
        rows = []
        for pair, result, original in list(zip(self.taught, results, self.originals, strict=True))[:count]:
            low, ours, theirs = validation.sample_crop(pair, result, self.scale, _SHOWN_PX)
            _, _, truth = validation.sample_crop(
                ValidationPair(pair.name, pair.low, original), result, self.scale, _SHOWN_PX
            )
            small = bicubic(low, theirs.shape[1], theirs.shape[0])
            cells = {"low": small, "student": ours, "teacher": theirs, "original": truth}
            rows.append(SheetRow(pair.name, "", pair.low, cells))
        about = {"low": "enlarged bicubically", "student": "", "teacher": self.teacher.model.name, "original": ""}
        return draw_sheet(about, rows, zoom_percent=100) if rows else None


def _enlarged(pair: ValidationPair, scale: int) -> Pixels:
    return bicubic(pair.low, pair.low.shape[1] * scale, pair.low.shape[0] * scale)


def _seconds(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return max(time.perf_counter() - began_s, 1e-9)


def _features_at_hand(run: Run) -> VGGFeatures | None:
    """The features of the run's loss, or others that are available here: nothing is downloaded for a number in a
    report."""
    if run.perceptual is not None:
        return run.perceptual.features
    settings = run.config.perceptual
    if settings.source == "vgg19" and settings.weights_file is None and not _are_downloaded():
        return None
    return make_features(run.config).to(run.device)


def _are_downloaded() -> bool:
    from torchvision.models import VGG19_Weights

    name = VGG19_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    return bool((Path(torch.hub.get_dir()) / "checkpoints" / name).is_file())
