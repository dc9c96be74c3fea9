"""From options to a finished evaluation: models and baselines, side by side, on a folder's pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from srgan_cli.config import DEFAULT_MODEL, EngineOptions, WriteOptions, check_noise
from srgan_cli.dataset import alignment
from srgan_cli.dataset.wear_header import check_wear
from srgan_cli.errors import ExitCode, NothingToDoError, SettingsError, shown
from srgan_cli.evaluation import further, pairs
from srgan_cli.evaluation.evaluate import (
    Enlarge,
    Evaluation,
    NamedPair,
    PictureScores,
    bicubic_enlarger,
    lanczos_enlarger,
    side_by_side,
)
from srgan_cli.evaluation.variants import Variant, variants
from srgan_cli.imaging.image import Header, Pixels
from srgan_cli.imaging.output import decide
from srgan_cli.imaging.writing import write_picture
from srgan_cli.sizes import MAX_SCALE
from srgan_cli.training_data_config import DegradationSettings, degradation_called
from srgan_cli.upscaling.session import select
from srgan_cli.wording import none_of

if TYPE_CHECKING:
    from srgan_cli.engine.upscaler import Upscaler

_BASELINES = ("bicubic", "lanczos")
_LOW = "low"  # the folder of the saved low pictures
_WITHOUT_COLOURS = (
    "the wear was learned from pictures without colours, so originals and small pictures are compared in grey"
)


@dataclass(frozen=True)
class EvaluateOptions:
    """Settings of one `srgan evaluate`. `scale` None: the models' own. `metrics` None: all available ones."""

    high_dir: Path
    models: tuple[str, ...] = (DEFAULT_MODEL,)
    low_dir: Path | None = None
    degradation: str | None = None  # degradation for low pictures if none are given, or a run's wear; None: bicubic
    scale: int | None = None
    save: Path | None = None
    metrics: tuple[further.Name, ...] | None = None
    vgg_weights: Path | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)  # `ensemble`: each model without it and with it
    # For models that draw their detail from noise: seed and strength; several strengths are evaluated side by side.
    seed: int = 0
    variations: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.models:
            raise SettingsError("give at least one model")
        check_noise(self.seed, self.variations)
        if self.low_dir is not None and self.degradation is not None:
            raise SettingsError("--lr-dir gives the small pictures and --degradation makes them; give one of the two")
        if self.scale is not None and not 2 <= self.scale <= MAX_SCALE:
            raise SettingsError(f"--scale must be between 2 and {MAX_SCALE:g}, not {self.scale}")


@dataclass(frozen=True)
class EvaluationReport:
    """The results. `compute` describes each model's device and precision, and its noise; `failures` are sentences."""

    scale: int
    methods: dict[str, Evaluation]
    compute: dict[str, dict[str, str | float]]
    failures: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.SOME_FAILED if self.failures else ExitCode.DONE


def evaluate_models(
    options: EvaluateOptions,
    *,
    advance: Callable[[int, int, str], None] = lambda _done, _all, _name: None,
) -> EvaluationReport:
    """Evaluate bicubic, Lanczos and the models on every picture.

    `advance` receives the number of pictures started, the total, and the name. A picture that cannot be used is left
    out for every method, and named in the report. Raises `SettingsError`, `NothingToDoError` (also if no picture can be
    used), `WeightsError` or `DeviceError`, and `UnwritablePictureError` if a result cannot be saved.
    """
    _check_save(options.save)
    scale = shared_scale(options.models, options.scale)
    degradation, grey = _degradation("bicubic" if options.degradation is None else options.degradation, scale)
    found = pairs.find_pairs(options.high_dir, options.low_dir, scale)
    models = _models(options, scale)
    device = str(next(iter(models.values())).upscaler.compute.device)
    chosen = further.choose_metrics(options.metrics, vgg_weights=options.vgg_weights, device=device)
    failures = list(found.missing)

    def counted() -> Iterator[pairs.PairFiles]:
        for number, one in enumerate(found.files):
            advance(number, len(found.files), one.name)
            yield one

    taken = pairs.read_pairs(counted(), scale=scale, degradation=degradation, grey=grey, on_failure=failures.append)
    baselines = dict(zip(_BASELINES, (bicubic_enlarger(scale), lanczos_enlarger(scale)), strict=True))
    methods: dict[str, Enlarge] = {**baselines, **{name: one.upscaler.upscale for name, one in models.items()}}
    again = {name: one.again.upscale for name, one in models.items() if one.again is not None}
    shifts = _Shifts()
    looked_at = shifts.seen(taken) if options.low_dir is not None else taken
    evaluations = side_by_side(
        methods, _saving(looked_at, options.save), scale=scale, extra=chosen.metrics, again=again,
        on_result=_saver(options.save, methods),
    )  # fmt: skip
    notes = (_WITHOUT_COLOURS,) if grey else ()
    if not evaluations["bicubic"].pictures:
        raise NothingToDoError(f"{none_of(len(failures), 'picture', 'be compared')}: {failures[0]}")
    compute = {name: _compute(one) for name, one in models.items()}
    return EvaluationReport(scale, evaluations, compute, tuple(failures), (*notes, *chosen.notes, *shifts.notes))


def _models(options: EvaluateOptions, scale: int) -> dict[str, Variant]:
    plain = replace(options.engine, ensemble=False)
    upscalers = load_upscalers(options.models, scale, plain, taken=_BASELINES)
    asked = "--variation" if options.variations else "--seed" if options.seed else ""
    models = variants(upscalers, (options.seed,), options.variations, asked=asked)
    if options.engine.ensemble:
        models |= {f"{name}, ensemble": Variant(upscaler.averaged()) for name, upscaler in upscalers.items()}
    return models


def _compute(model: Variant) -> dict[str, str | float]:
    compute = model.upscaler.compute
    return {"device": compute.name, "precision": compute.precision, **model.facts}


def _degradation(name: str, scale: int) -> tuple[DegradationSettings, bool]:
    """As in training, and whether it is for grey pictures; a learned wear is applied to every picture. Raises
    `SettingsError` or `WeightsError` for a run without wear, or with wear for another scale."""
    settings = DegradationSettings(**degradation_called(name))
    if settings.wear is None:
        return settings, False
    return replace(settings, clean_fraction=0.0), check_wear(settings.wear, scale).grey


class _Shifts:
    """Collects the shifts between the pictures of pairs."""

    def __init__(self) -> None:
        self._found: list[tuple[str, alignment.Shift]] = []
        self._count = 0

    def seen(self, taken: Iterator[NamedPair]) -> Iterator[NamedPair]:
        """The pairs, examined as they pass."""
        for name, low, high in taken:
            self._count += 1
            found = alignment.shift(low, high)
            self._found += [] if found is None else [(name, found)]
            yield name, low, high

    @property
    def notes(self) -> tuple[str, ...]:
        said = alignment.sentence(self._found, self._count)
        return () if said is None else (said,)


def shared_scale(models: Sequence[str], wanted: int | None) -> int:
    """The requested scale, or the one that all models have (4, if they share several). Needs no torch."""
    scales = {source: select(source).scales for source in models}
    have = ", ".join(f"{source} enlarges {' or '.join(map(str, own))} times" for source, own in scales.items())
    shared = set.intersection(*(set(own) for own in scales.values()))
    if wanted is not None:
        if wanted not in shared:
            raise SettingsError(f"--scale {wanted} does not suit these models: {have}")
        return wanted
    if not shared:
        raise SettingsError(f"only models of one scale can be compared: {have}")
    return min(shared, key=lambda scale: abs(scale - 4))


def load_upscalers(
    models: Sequence[str], scale: int, engine: EngineOptions, *, taken: Sequence[str] = ()
) -> dict[str, Upscaler]:
    """One for each model, by its name, unless that is one of those `taken`."""
    from srgan_cli.engine.upscaler import Upscaler
    from srgan_cli.networks.weights import load_model

    loaded = {source: load_model(source, scale) for source in dict.fromkeys(models)}
    taken = [*taken, *(model.name for model in loaded.values())]
    return {
        # Two runs may both have named their model `model`; then what the user typed distinguishes them.
        model.name if taken.count(model.name) == 1 else source: Upscaler(model, engine)
        for source, model in loaded.items()
    }


# ------------------------------------------------------------------------------------------------- keeping the pictures


def _check_save(folder: Path | None) -> None:
    if folder is not None and (folder.is_file() or (folder.is_dir() and any(folder.iterdir()))):
        raise SettingsError(f"--save {shown(folder)} exists already and is not empty; name a new folder")


def _saving(taken: Iterator[NamedPair], folder: Path | None) -> Iterator[NamedPair]:
    """The pairs, whose low pictures are saved as they pass."""
    for name, low, high in taken:
        if folder is not None:
            _save(folder / _LOW / name, low)
        yield name, low, high


def _saver(folder: Path | None, methods: Iterable[str]) -> Callable[[str, Pixels, PictureScores], None] | None:
    if folder is None:
        return None
    names = _folder_names(methods)
    return lambda method, result, scores: _save(folder / names[method] / scores.name, result)


def _folder_names(methods: Iterable[str]) -> dict[str, str]:
    """A folder for each method, always inside the output folder, even for a model called `../runs/a`, and of its own,
    even for one called `low`."""
    names: dict[str, str] = {}
    taken = {_LOW}
    for method in methods:
        plain = "-".join(part for part in Path(method).parts if part not in (Path(method).anchor, "..")) or "model"
        name = next(one for one in chain((plain,), (f"{plain} ({n})" for n in count(2))) if one.casefold() not in taken)
        names[method] = name
        taken.add(name.casefold())
    return names


def _save(path: Path, pixels: Pixels) -> None:
    """As PNG, whatever the original's format, so that the saved pixels are the measured ones."""
    path = path.with_suffix(".png")
    if path.exists():  # in a folder that was empty
        raise SettingsError(f"--save: two pictures would be {shown(path)}, as their names differ only in the extension")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise SettingsError(f"--save: {shown(path.parent)} cannot be made: {err.strerror}") from err
    height, width, channels = pixels.shape
    header = Header(width, height, channels, 8, "png")
    options = WriteOptions()
    write_picture(path, pixels, header, decide(path, header, options, width=width, height=height), options)
