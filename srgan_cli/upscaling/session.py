"""From options to a finished run, for the command and `upscale_file`.

`prepare` needs no torch for bundled models and those made by `srgan train`. torch is imported when the first network is
loaded. With `--model auto`, each picture is examined when its turn comes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from srgan_cli.config import AUTO_MODEL, DEFAULT_DETAIL, UpscaleOptions
from srgan_cli.documents.opening import sample_of
from srgan_cli.engine.held import Upscalers
from srgan_cli.errors import PictureError, SettingsError
from srgan_cli.imaging.sources import vips_module
from srgan_cli.networks import library, registry
from srgan_cli.networks.library import OwnModel
from srgan_cli.networks.registry import Entry
from srgan_cli.sizes import Size
from srgan_cli.stores import reach
from srgan_cli.upscaling import pace
from srgan_cli.upscaling.choice import CLEAN, WORN, choose_model
from srgan_cli.upscaling.inputs import STREAM, InputFile
from srgan_cli.upscaling.places import journal_of, rows_kept
from srgan_cli.upscaling.plan import Job, Plan
from srgan_cli.upscaling.planning import plan

if TYPE_CHECKING:
    from srgan_cli.engine.upscaler import Upscaler
    from srgan_cli.upscaling.crew.startup import WorkerStartup
    from srgan_cli.upscaling.observer import Observer, Tally

# Increased when results of the same options and weights change, so that --resume makes them again.
_RESULTS_VERSION = 3
# Texture invented by one pass is content for the next, which would amplify it into patterns. With this fraction of the
# detail in the earlier passes there are none, and the result's perceptual distance is hardly larger
# (`benchmarks.passes`).
_EARLIER_DETAIL = 2 / 3
_LOOKING_THREADS = 2
_SHORT = 16  # hexadecimal digits of a SHA-256 in a result's provenance record


@dataclass(frozen=True)
class Selection:
    """The networks that a model's name stands for, by scale, as `load_model` takes them, and their SHA-256s.

    `earlier` are those for all passes but the last; empty if they are the same. `has_noise`: they draw their detail
    from noise, so a result can have variants.
    """

    name: str
    sources: dict[int, str | Path]
    sha256: tuple[str, ...]
    earlier: dict[int, str | Path] = field(default_factory=dict)
    has_noise: bool = False

    @property
    def scales(self) -> tuple[int, ...]:
        return tuple(sorted(self.sources))

    def passes(self, scales: tuple[int, ...]) -> list[str | Path]:
        """What `load_model` takes for each pass (at least one)."""
        *before, last = scales
        return [*((self.earlier or self.sources)[scale] for scale in before), self.sources[last]]

    def record(self, scales: tuple[int, ...]) -> tuple[str, str]:
        """For provenance: the networks' names, and the shortened SHA-256s of their files."""
        if not scales:  # the input was already large enough
            return "none", "none"
        passes = self.passes(scales)
        names = [self.name if isinstance(source, Path) else source for source in passes]
        weights = [self.sha256[0] if isinstance(source, Path) else _weights_of(source) for source in passes]
        return " then ".join(names), " then ".join(one[:_SHORT] for one in weights)


def _weights_of(name: str) -> str:
    """SHA-256 of a bundled model's file; for an interpolation between two models, of the second, whose name contains
    the fraction."""
    bundled, _ = registry.split_detail(name)
    return registry.family(bundled)[0].sha256


def select(model: str, detail: float | None = None) -> Selection:
    """The networks of a family, a model, a file or a run folder.

    `detail` (0 to 1) applies to the srgan family, as does `srgan@0.6`. Raises `WeightsError`, or `SettingsError` for a
    `detail` that the model does not support. Only another program's file has to be loaded, with torch, to learn its
    scale.
    """
    name, written = registry.split_detail(model)
    if detail is not None and written is not None:
        raise SettingsError(f"give the detail once: --model {name} --detail {detail:g}")
    path, bundled = registry.resolve(name)
    if bundled is not None:
        return _bundled(name, bundled, detail if written is None else written)
    if detail is not None:
        raise SettingsError(_NO_DETAIL.format(name))
    if (own := library.owner_of(path)) is not None:
        return _own(name, own)
    entry = registry.describe_file(path)
    if entry is not None:
        return Selection(entry.name, {entry.scale: path}, (entry.sha256,), has_noise=entry.has_noise)
    from srgan_cli.networks.weights import load_model

    loaded = load_model(path)
    return Selection(loaded.name, {loaded.scale: path}, (loaded.sha256,))


_NO_DETAIL = "--detail is for srgan, from fidelity (0) to all its texture (1); {} has no choice of detail"


def _own(name: str, model: OwnModel) -> Selection:
    """Facts stored about the user's models when they were added, so that nothing has to be loaded here."""
    members = library.members(name)
    if not members:  # by its path
        name, members = model.name, (model,)
    sha256 = tuple(sha for member in members for sha in member.sha256.values())
    has_noise = any(registry.draws_from_noise(member.path) for member in members)
    return Selection(name, {m.scale: m.path for m in members}, sha256, has_noise=has_noise)


def _bundled(name: str, entry: Entry, detail: float | None) -> Selection:
    members = registry.family(name)
    starts = [start for member in members if (start := registry.start_of(member)) is not None]
    if not starts:
        if detail is not None:
            raise SettingsError(_NO_DETAIL.format(name))
        sha256 = tuple(e.sha256 for e in members)
        has_noise = any(e.has_noise for e in members)
        return Selection(name, {e.scale: e.name for e in members}, sha256, has_noise=has_noise)
    amount = DEFAULT_DETAIL if detail is None else detail
    sha256 = (*(e.sha256 for e in (*starts, *members)), f"{amount:.6f}")
    shown_name = name if detail is None else registry.blend_name(name, amount)

    def blends(fraction: float) -> dict[int, str | Path]:
        return {e.scale: f"{e.name}@{fraction!r}" for e in members}

    has_noise = any(e.has_noise for e in members)
    return Selection(shown_name, blends(amount), sha256, blends(round(_EARLIER_DETAIL * amount, 4)), has_noise)


def load_upscaler(session: Session, job: Job, on_note: Callable[[str], None]) -> Upscaler:
    """The networks of a job, on the device of the session's options."""
    options = session.options
    if session.upscaler is not None and (options.seed, options.variation, options.variants) == (0, None, 1):
        return session.upscaler  # which may already be a variation
    selection = session.selections[job.model]
    upscaler = session.upscaler or session.upscalers.take(
        selection.passes(job.scales), selection.sha256, options.engine, on_note
    )
    return upscaler.varied(job.seed(options.seed), 1.0 if options.variation is None else options.variation)


@dataclass(frozen=True)
class Session:
    """A run that is ready to start. `selections` are the models that it may use; the first is used if there is one for
    all pictures."""

    options: UpscaleOptions
    selections: dict[str, Selection]
    plan: Plan
    settings_key: str
    began: float  # from `time.perf_counter`, when preparation began
    upscaler: Upscaler | None = None  # given by the caller, for all pictures
    upscalers: Upscalers = field(default_factory=Upscalers)  # kept by the caller between runs
    make: Callable[[Session, Job, Callable[[str], None]], Upscaler] = load_upscaler
    startup: WorkerStartup | None = None  # of workers that were started early

    @property
    def is_auto(self) -> bool:
        return self.options.model == AUTO_MODEL and self.upscaler is None

    @property
    def model(self) -> str:
        """The model's name for all pictures, for display."""
        first = next(iter(self.selections.values()))
        return f"{AUTO_MODEL} ({' or '.join(s.name for s in self.selections.values())})" if self.is_auto else first.name

    def assign(self, job: Job) -> Job:
        """The job with its model; `auto` chooses by examining the picture."""
        if not job.scales:  # no network is needed
            return job
        if not self.is_auto:
            return self._assigned(job, next(iter(self.selections)), "asked for")
        source = job.origin
        number = job.pages[0].number if job.pages else job.page
        if number is not None:
            with contextlib.suppress(PictureError):  # the error is reported when the picture is read
                source = sample_of(source, number, max_pixels=self.options.max_pixels)
        choice = choose_model(source, max_pixels=self.options.max_pixels)
        return self._assigned(job, choice.model, choice.why)

    def _assigned(self, job: Job, model: str, why: str) -> Job:
        names, weights = self.selections[model].record(job.scales)
        names += " (ensemble)" if self.options.engine.ensemble else ""
        return replace(job, model=model, why=why, made_by=(names, weights))

    def assigned(self) -> tuple[Job, ...]:
        """All jobs with their models."""
        with ThreadPoolExecutor(_LOOKING_THREADS) as pool:
            return tuple(pool.map(self.assign, self.plan.jobs))

    def describe(self, job: Job) -> str:
        """The networks that make a job's result, as text."""
        return "model " + " then ".join(str(source) for source in self.selections[job.model].passes(job.scales))

    def facts(self, job: Job, upscaler: Upscaler) -> tuple[str, ...]:
        """What a verbose run reports of the networks that it begins to use."""
        ensemble = ("ensemble: the mean of eight results",) if upscaler.chain.is_ensemble else ()
        return self.describe(job), *upscaler.compute.reasons, *ensemble, f"tiles of up to {upscaler.tile_px} px"

    def estimated_seconds(self) -> float | None:
        """Estimated from the speed of the last run with this model on this machine, including start-up and excluding
        rows already done by an interrupted run; None without an earlier run."""
        speed = self.last_pace()
        if speed is None:
            return None
        pixels = sum(self._pixels_left(job) for job in self.plan.jobs)
        return speed.startup_seconds * bool(pixels) + pixels / (speed.megapixels_per_second * 1e6)

    def _pixels_left(self, job: Job) -> int:
        if not self.options.resume or not job.scratch_bytes or job.target == STREAM:
            return job.network_pixels
        folder = job.target.parent
        rows = rows_kept(job, journal_of(job, self.settings_key, folder), folder)
        return job.network_pixels * (job.header.height - rows) // job.header.height

    def memory_bytes(self, job: Job) -> int | None:
        """Approximate memory for a picture, network and program included; None until a run here has measured it."""
        speed = self.last_pace()
        network = 0 if speed is None else speed.memory_bytes(job.header.width * job.header.height)
        return network + job.memory_bytes if network else None

    def last_pace(self) -> pace.Pace | None:
        engine = self.options.engine
        known = pace.recall(self._pace_key(ensemble=engine.ensemble))
        if known is not None or not engine.ensemble:
            return known
        single = pace.recall(self._pace_key(ensemble=False))
        return None if single is None else single.of_ensemble()

    def tiles(self, job: Job) -> int | None:
        """Number of tiles, with the tile size of the last run; None without an earlier run."""
        speed = self.last_pace()
        if speed is None:
            return None
        return -(-job.header.width // speed.tile_px) * -(-job.header.height // speed.tile_px)

    def run(self, observer: Observer, *, stream: BinaryIO | None = None) -> Tally:
        """Run the session. Results without a file go to `stream`, stdout by default. See
        `srgan_cli.upscaling.batch.run`."""
        if self.options.has_crew and self.upscaler is None and self.plan.jobs:
            from srgan_cli.upscaling.crew.lead import hired, lead

            with hired(self) as crew:
                return lead(self, crew, observer, stream)
        from srgan_cli.upscaling import batch
        from srgan_cli.upscaling.measuring import Stopwatch

        watch = Stopwatch(self.began)
        made: list[Upscaler] = []
        told: set[tuple[str, ...]] = set()  # variants share their networks

        def make(job: Job) -> Upscaler:
            upscaler = self.make(self, job, observer.note)
            made.append(upscaler)
            watch.ready()
            if upscaler.compute.name == "cpu" and self.options.engine.device == "auto":
                _note_unused_gpu(observer)
            facts = self.facts(job, upscaler)
            for sentence in facts if facts not in told else ():
                observer.detail(sentence)
            told.add(facts)
            return upscaler

        expected = self._expected(self.last_pace())
        tally = batch.run(self.plan, self.options, self.settings_key, make, observer, self.assign, expected, stream)
        # Smaller runs measure the start rather than the speed.
        if made and self.upscaler is None and tally.network_pixels > 4_000_000:
            pace.remember(self._pace_key(ensemble=self.options.engine.ensemble), watch.pace(tally, made[-1]))
        return tally

    @staticmethod
    def _expected(speed: pace.Pace | None) -> Callable[[Job], float | None]:
        """Expected time of a picture, from the speed of the last run."""
        return lambda job: None if speed is None else job.network_pixels / (speed.megapixels_per_second * 1e6)

    def _pace_key(self, *, ensemble: bool) -> str:
        engine = self.options.engine
        sha256 = [one for selection in self.selections.values() for one in selection.sha256]
        mode = "-ensemble" if ensemble else ""
        return f"{'-'.join(s[:12] for s in sha256)}-{engine.device}-{engine.precision}{mode}"


def prepare(
    options: UpscaleOptions,
    *,
    stdin: bytes | None = None,
    upscaler: Upscaler | None = None,
    upscalers: Upscalers | None = None,
    found: Sequence[InputFile] | None = None,
    start_workers: bool = False,
) -> Session:
    """Choose the networks (those of a given `upscaler`, if any) and resolve the plan, for the inputs of `options` or
    for those that the caller has `found`. Networks are taken from `upscalers` where possible. `start_workers`: if there
    are to be several, start them in parallel as soon as a picture to be enlarged is found.

    Raises what `select` and `plan` raise.
    """
    began = time.perf_counter()
    reach.forget()
    vips_module()  # some pictures can be read without it, but none can be written
    if upscaler is not None:  # how it works decides what is recorded
        options = replace(options, engine=upscaler.options)
    selections = _selections(options) if upscaler is None else _held(upscaler, options)
    _refuse_without_noise(options, selections)
    key = _settings_key(options, selections)
    scales = set.intersection(*(set(selection.scales) for selection in selections.values()))
    with _startup(options, selections, key, start_workers=start_workers and upscaler is None) as startup:
        begin = None if startup is None else startup.begin
        made = plan(options, tuple(sorted(scales)), key, stdin=stdin, found=found, on_work=begin)
        if startup is not None and not made.jobs:
            startup.close()
    if upscaler is not None and (job := next((job for job in made.jobs if len(job.scales) > 1), None)) is not None:
        asked = max(job.output.width / job.header.width, job.output.height / job.header.height)
        raise SettingsError(f"the upscaler enlarges {upscaler.scale} times, but {asked:g} times were requested")
    return Session(options, selections, made, key, began, upscaler, upscalers or Upscalers(), startup=startup)


@contextlib.contextmanager
def _startup(
    options: UpscaleOptions, selections: dict[str, Selection], key: str, *, start_workers: bool
) -> Iterator[WorkerStartup | None]:
    """Prepares to start a run's workers while it is planned; if the plan is refused, they are ended."""
    if not (start_workers and options.has_crew):
        yield None
        return
    from srgan_cli.upscaling.crew.lead import own_memory, startup_of
    from srgan_cli.upscaling.crew.messages import Brief

    if own_memory(options) is not None:  # refused, if there is something to do
        yield None
        return
    startup = startup_of(Brief(options, selections, key, load_upscaler))
    try:
        yield startup
    except BaseException:
        startup.close()
        raise


def _held(upscaler: Upscaler, options: UpscaleOptions) -> dict[str, Selection]:
    if options.model != AUTO_MODEL or options.detail is not None:
        raise SettingsError("the upscaler has its own model and detail; do not give these as well")
    name = " then ".join(model.name for model in upscaler.models)
    return {
        name: Selection(
            name,
            {upscaler.scale: Path(upscaler.models[-1].path)},
            tuple(model.sha256 for model in upscaler.models),
            has_noise=any(model.network.has_noise for model in upscaler.models),
        )
    }


def _refuse_without_noise(options: UpscaleOptions, selections: Mapping[str, Selection]) -> None:
    asked = "--variants" if options.variants > 1 else "--variation" if options.variation is not None else None
    if asked is not None and not any(selection.has_noise for selection in selections.values()):
        names = " and ".join(selection.name for selection in selections.values())
        raise SettingsError(NO_NOISE.format(asked, names))


NO_NOISE = (
    "{} needs a model that draws its detail from noise, unlike {}: --model srgan-noise does, and `srgan train --set "
    "generator.noise=true` trains others (docs/TRAINING.md)"
)


def _note_unused_gpu(observer: Observer) -> None:
    from srgan_cli.engine.backends.pytorch import unused_gpu

    if (sentence := unused_gpu()) is not None:
        observer.note(sentence)


def _selections(options: UpscaleOptions) -> dict[str, Selection]:
    """By the names that jobs refer to them by; first the one for all pictures."""
    if options.model != AUTO_MODEL:
        return {options.model: select(options.model, options.detail)}
    return {CLEAN: select(CLEAN, options.detail), WORN: select(WORN)}


def _settings_key(options: UpscaleOptions, selections: Mapping[str, Selection]) -> str:
    """A key of everything but the input that determines a result. Device and tiles are excluded, as they change only
    rounding."""
    # The name of a variant's result contains its number.
    has_noise = not options.engine.ensemble and any(selection.has_noise for selection in selections.values())
    deciding = {
        "version": _RESULTS_VERSION,
        "weights": [selection.sha256 for selection in selections.values()],
        "size": _size_key(options.size),
        "write": asdict(options.write),
        "color_lock": options.engine.color_lock,
        "precision": options.engine.precision,
        **({"ensemble": True} if options.engine.ensemble else {}),
        **({} if options.pages.is_all else {"pages": asdict(options.pages)}),
        **({"grain": options.grain} if options.has_grain else {}),
        **({"seed": options.seed} if options.has_grain or has_noise else {}),
        **({"variation": options.variation} if has_noise and options.variation is not None else {}),
    }
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


def _size_key(size: Size) -> dict[str, object]:
    """The settings that determine sizes. Settings that are missing in earlier versions' records are included only if
    used."""
    always = ("scale", "width", "height", "long_side", "fit")
    return {name: value for name, value in asdict(size).items() if name in always or value not in (None, False, "skip")}
