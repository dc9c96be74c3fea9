"""From options to a finished run: what the command, and `upscale_file`, are clients of.

`prepare` needs no torch for the bundled models and for those that `srgan train` made; torch is imported when the first
network is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from srgan_cli.config import DEFAULT_MODEL, UpscaleOptions
from srgan_cli.errors import SettingsError
from srgan_cli.networks import registry
from srgan_cli.upscaling import pace
from srgan_cli.upscaling.plan import STREAM, Job, Plan, plan

if TYPE_CHECKING:
    from srgan_cli.networks.weights import Model
    from srgan_cli.upscaling.batch import Observer, Report
    from srgan_cli.upscaling.engine import Upscaler

# Raised when results of the same options and weights change, so that --resume makes them anew.
_RESULTS_VERSION = 1


@dataclass(frozen=True)
class Selection:
    """The networks that `--model` stands for, by their scale: a file each, and its SHA-256."""

    name: str
    files: dict[int, Path]
    sha256: tuple[str, ...]

    @property
    def scales(self) -> tuple[int, ...]:
        return tuple(sorted(self.files))


def select(model: str) -> Selection:
    """The networks behind a family's name, a model's name, a file or a run folder. Raises `WeightsError`.

    Only a file of another program has to be loaded, torch and all, to learn its scale.
    """
    path, bundled = registry.resolve(model)
    if bundled is not None:
        members = registry.family(model)
        return Selection(model, {e.scale: e.path for e in members}, tuple(e.sha256 for e in members))
    entry = registry.describe_file(path)
    if entry is not None:
        return Selection(entry.name, {entry.scale: path}, (entry.sha256,))
    from srgan_cli.networks.weights import load_model

    loaded = load_model(path)
    return Selection(loaded.name, {loaded.scale: path}, (loaded.sha256,))


@dataclass(frozen=True)
class Session:
    """A run that is ready to start."""

    options: UpscaleOptions
    selection: Selection
    plan: Plan
    settings_key: str

    def describe(self) -> str:
        """Which model, and why."""
        why = "the default" if self.options.model == DEFAULT_MODEL else "asked for"
        return f"model {self.selection.name}: {why}"

    def estimated_seconds(self) -> float | None:
        """From the speed of the last run with this model on this machine; None before there was one."""
        speed = self.last_pace()
        return None if speed is None else self.plan.network_pixels / (speed.megapixels_per_second * 1e6)

    def last_pace(self) -> pace.Pace | None:
        return pace.recall(self._pace_key())

    def tiles(self, job: Job) -> int | None:
        """How many tiles, with the tile size of the last run; None before there was one."""
        speed = self.last_pace()
        if speed is None:
            return None
        return -(-job.header.width // speed.tile_px) * -(-job.header.height // speed.tile_px)

    def run(self, observer: Observer) -> Report:
        """Do it. See `srgan_cli.upscaling.batch.run` for what is raised."""
        from srgan_cli.upscaling import batch

        made: list[Upscaler] = []

        def make(scales: tuple[int, ...]) -> Upscaler:
            upscaler = self._upscaler(scales, observer.note)
            made.append(upscaler)
            for sentence in (self.describe(), *upscaler.compute.reasons, f"tiles of up to {upscaler.tile_px} px"):
                observer.detail(sentence)
            return upscaler

        report = batch.run(self.plan, self.options, self.settings_key, make, observer)
        if made and report.network_pixels > 4_000_000:  # less says more of the start than of the speed
            speed = report.network_pixels / 1e6 / report.network_seconds
            pace.remember(
                self._pace_key(),
                pace.Pace(str(made[-1].compute.device), made[-1].compute.precision, made[-1].tile_px, speed),
            )
        return report

    def _upscaler(self, scales: tuple[int, ...], on_note: Callable[[str], None]) -> Upscaler:
        from srgan_cli.networks.weights import load_model
        from srgan_cli.upscaling.engine import Upscaler

        loaded: dict[int, Model] = {}
        for scale in scales:
            if scale not in loaded:
                loaded[scale] = load_model(self.selection.files[scale])
        return Upscaler([loaded[s] for s in scales], self.options.engine, on_note=on_note)

    def _pace_key(self) -> str:
        engine = self.options.engine
        return f"{'-'.join(s[:12] for s in self.selection.sha256)}-{engine.device}-{engine.precision}"


def prepare(options: UpscaleOptions, *, stdin: bytes | None = None) -> Session:
    """Choose the networks and resolve the plan. Raises what `select` and `plan` raise."""
    selection = select(options.model)
    key = _settings_key(options, selection)
    return Session(options, selection, plan(options, selection.scales, key, stdin=stdin), key)


def _settings_key(options: UpscaleOptions, selection: Selection) -> str:
    """What decides a result but its input. Where it runs and in what tiles does not, to within rounding."""
    deciding = {
        "version": _RESULTS_VERSION,
        "weights": selection.sha256,
        "size": asdict(options.size),
        "write": asdict(options.write),
        "color_lock": options.engine.color_lock,
        "precision": options.engine.precision,
    }
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


class Silent:
    """An observer that keeps to itself."""

    def started(self, job: object) -> None: ...

    def advanced(self, job: object, network_pixels: int) -> None: ...

    def done(self, job: object, seconds: float, notes: tuple[str, ...]) -> None: ...

    def failed(self, failure: object) -> None: ...

    def note(self, sentence: str) -> None: ...

    def detail(self, sentence: str) -> None: ...


def upscale_file(source: str | Path, target: str | Path, options: UpscaleOptions | None = None) -> Path:
    """Enlarge one picture file and write the result, metadata and all; returns the target.

    `options` are those of the command (`inputs` and `output` aside): `UpscaleOptions(size=Size(scale=2))`, say.
    Raises `UnreadablePictureError`, `UnwritablePictureError`, `SettingsError`, `WeightsError` or `DeviceError`.
    """
    source, target = Path(source), Path(target)
    if source == STREAM or source.is_dir():
        raise SettingsError(f"upscale_file takes one picture file, not {source}")
    session = prepare(replace(options or UpscaleOptions(), inputs=(source,), output=target))
    report = session.run(Silent())
    if report.error is not None:
        raise report.error
    if report.failures:
        raise report.failures[0].kind(report.failures[0].reason)
    if report.interrupted:
        raise KeyboardInterrupt
    return session.plan.jobs[0].target if session.plan.jobs else session.plan.skips[0].target
