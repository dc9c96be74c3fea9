"""The first process's desk: what is logged, looked at, judged and kept while a run goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import platform
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import cast

import torch

from srgan_cli import __version__
from srgan_cli.dataset.cache import unchanged
from srgan_cli.dataset.pictures import read_pixels
from srgan_cli.dataset.scan import Scan
from srgan_cli.errors import TrainingError, WeightsError
from srgan_cli.imaging.image import Pixels
from srgan_cli.networks.registry import RUN_MODEL, Card
from srgan_cli.networks.weights import save_weights
from srgan_cli.runlog.curves import draw_curves
from srgan_cli.runlog.record import Record
from srgan_cli.runlog.report import write_report
from srgan_cli.training import checkpoint, folder, validation
from srgan_cli.training.meter import At, Meter
from srgan_cli.training.monitor import (
    DiscriminatorNumbers,
    Finding,
    Monitor,
    ValidationNumbers,
    as_values,
    picture_numbers,
)
from srgan_cli.training.observer import Observer, Outcome, Progress
from srgan_cli.training.run import Run, State, Stepped
from srgan_cli.training.schedule import Length
from srgan_cli.training.steps import Autocast
from srgan_cli.training.validation import Pair
from srgan_cli.training_config import TrainConfig
from srgan_cli.training_presets import to_toml

FIDELITY_MODEL = "fidelity.safetensors"  # phase 1's result, beside the adversarial one: the two can be blended
# Looking at the validation pictures takes at most this part of the time, whatever interval was asked for.
_LOOKING_SHARE = 0.05
_SAMPLE_PX = 192
_PATIENCE, _PATIENCE_STEPS = 2, 40  # lines of the log in a row, and steps, that overflows of a scaler may spoil
_REPORT_S = 0.5


class Recorder:
    """A context manager: the log is closed at its end, whatever happened."""

    def __init__(
        self, config: TrainConfig, where: Path, run: Run, state: State, scan: Scan, observer: Observer
    ) -> None:
        self.where, self.run, self.state, self.scan, self.observer = where, run, state, scan, observer
        self.pairs = _pairs(config, scan, run.generator.scale)
        self.floor = validation.floor(self.pairs, run.generator.scale).mean
        scaled = run.learner.scaler.is_enabled()  # such steps are left out by the scaler itself
        self.monitor = Monitor(
            config.adversarial.objective,
            patience=_PATIENCE if scaled else 1,
            patience_steps=_PATIENCE_STEPS if scaled else 0,
        )
        self.meter = Meter()
        self.latest: dict[str, float] = {}
        self._pictures = _digest(scan)
        folder.write_config(where, config)
        self.record = Record(where, resume_bytes=state.log_bytes or None, note=observer.note)
        # How long the last look at the validation pictures took, the last one in fp32, and the last save.
        self._look_s = self._exact_look_s = self._save_s = 0.0
        self._looked_s = self._saved_s = state.elapsed_s
        self._looked_step = self._saved_step = state.step

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.record.close()

    # ---------------------------------------------------------------------------------------------------- the beginning

    def open(self, notes: Sequence[str], *, resumed: bool) -> None:
        """Before the first step: what will be done, how good the network is now, and a first checkpoint, so that
        there is something to go back to, and a full disk is found now."""
        facts = self._facts(resumed)
        self.record.log({"event": "resumed" if resumed else "started", **self._when(), **facts})
        self.observer.started(facts)
        for sentence in notes:
            self._note(sentence)
        if _without_a_start(self.run.config) and not resumed:
            self._note("the adversarial phase begins with an untrained network; --init gives it one to begin with")
        if resumed:
            self.monitor.restore(self.state.monitor)
        else:
            self.monitor.begin(self.state.phase)
        if resumed and self.state.pictures != self._pictures:
            self._note("the pictures are not those that this run began with; its order and its scores change with them")
        self.state.pictures = self._pictures
        numbers = self.look(exact=True)
        if not resumed:
            self.monitor.validation(self.state.step, numbers)
            self.save(good=True)
        self.meter = Meter()

    @property
    def reserve_s(self) -> float:
        """How long before the end of its budget a run must stop training, to have the rest made in time: the last look,
        which is in fp32 as the first one was, a checkpoint, the model and the report."""
        return self._exact_look_s + self._save_s + _REPORT_S

    def _facts(self, resumed: bool) -> dict[str, object]:
        run, config = self.run, self.run.config
        settings = config.of(self.state.phase)
        reasons = Counter(one.kind for one in self.scan.refused)
        return {
            "device": str(run.device),
            "precision": {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[run.autocast.dtype],
            "processes": run.group.world,
            "threads": torch.get_num_threads(),
            "architecture": run.generator.architecture,
            "parameters": sum(parameter.numel() for parameter in run.generator.parameters()),
            "discriminator_parameters": sum(p.numel() for p in run.discriminator.parameters())
            if run.discriminator
            else 0,
            "scale": run.generator.scale,
            "batch": settings.batch,
            "crop_px": settings.crop_px,
            "steps": None if config.budget_s else config.steps,
            "budget_s": config.budget_s,
            "pictures": len(self.scan.train),
            "validation_pictures": len(self.scan.val),
            "left_out": len(self.scan.refused),
            "left_out_because": ", ".join(f"{count} {kind}" for kind, count in reasons.most_common()) or None,
            "split": self.scan.split,
            "resumed_at": self.state.step if resumed else None,
            "srgan": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }

    def _when(self) -> dict[str, object]:
        return {"phase": self.state.phase, "step": self.state.step, "seconds": round(self.state.elapsed_s, 3)}

    def _note(self, sentence: str) -> None:
        self.record.log({"event": "note", **self._when(), "text": sentence})
        self.observer.note(sentence)

    # -------------------------------------------------------------------------------------------------- after each step

    def after(self, stepped: Stepped, at: At) -> bool:
        """Note a step, and do what is due. True: go back to the last checkpoint."""
        self.meter.add(stepped, at)
        self.state.elapsed_s = at.elapsed_s
        watch = self.run.config.watch
        looking = self._due(self._looked_s, self._looked_step, self._patience_s, watch.validate_every_steps)
        saving = self._due(self._saved_s, self._saved_step, watch.checkpoint_every_s, watch.checkpoint_every_steps)
        if not (looking or saving or self.state.step % watch.log_every_steps == 0):
            return False
        if self._judge(self._log(at)):
            return True
        if looking and self._judge(self.monitor.validation(self.state.step, self.look())):
            return True
        if saving or looking:
            self.save(good=looking)
            self.meter = Meter()  # its speed is that of training, without looking and saving
        return False

    def settle(self, *, last: bool, looking: bool) -> bool:
        """Before a phase or the run ends: log and judge what came after the last line, and look once more, in fp32 at
        the very end. True: it went wrong, go back."""
        if self.meter.steps and self._judge(self._log(self.meter.at)):
            return True
        if looking and self._judge(self.monitor.validation(self.state.step, self.look(exact=last))):
            return True
        self.save(good=looking)
        if looking and not last:
            self._keep(FIDELITY_MODEL)
        self.meter = Meter()
        return False

    @property
    def _patience_s(self) -> float:
        return max(self.run.config.watch.validate_every_s, self._look_s / _LOOKING_SHARE)

    def _due(self, last_s: float, last_step: int, every_s: float, every_steps: int) -> bool:
        if every_steps:
            return self.state.step - last_step >= every_steps
        return self.state.elapsed_s - last_s >= every_s

    def _log(self, at: At) -> list[Finding]:
        """Everything since the last line of the log, as means; and what the monitor says of it."""
        means = self.meter.means()
        speed = self.meter.speed()
        self.meter = Meter()
        line: dict[str, object] = {
            **self._when(),
            "fraction": round(at.fraction, 5),
            "learning_rate": self.run.learner.optimizer.param_groups[0]["lr"],
            **means.plain(),
            **speed,
        }
        self.record.log({"event": "step", **line})
        scalars = {f"loss/{name}": value for name, value in means.raw.items()}
        scalars |= {f"weighted/{name}": value for name, value in means.weighted.items()}
        scalars |= {"learning_rate": float(cast(float, line["learning_rate"])), "gradient_norm": means.gradient_norm}
        if means.discriminator is not None:
            scalars |= {f"discriminator/{name}": value for name, value in means.discriminator.items()}
        self.record.scalars(self.state.step, scalars)
        self.observer.progress(
            Progress(
                phase=self.state.phase,
                step=self.state.step,
                fraction=at.fraction,
                losses={**means.raw, **({"discriminator": means.discriminator["loss"]} if means.discriminator else {})},
                validation=self.latest,
                seconds_left=self._left_s(at, speed["steps_per_s"]),
                **speed,
            )
        )
        numbers = None
        if means.discriminator is not None:
            discriminator = means.discriminator
            numbers = DiscriminatorNumbers(
                discriminator["loss"], discriminator["accuracy"], discriminator["gradient_norm"]
            )
        return self.monitor.step(self.state.step, means.raw, means.gradient_norm, numbers)

    def _left_s(self, at: At, steps_per_s: float) -> float:
        config = self.run.config
        return Length(config.steps, config.budget_s).seconds_left(self.state.step, at.elapsed_s, steps_per_s)

    def _judge(self, findings: Sequence[Finding]) -> bool:
        for finding in findings:
            kind = "rollback" if finding.roll_back else "note"
            self.record.log({"event": kind, **self._when(), "kind": finding.kind, "text": finding.sentence})
            self.observer.note(finding.sentence)
        return any(finding.roll_back for finding in findings)

    # ----------------------------------------------------------------------------------------- looking, keeping, ending

    def look(self, *, exact: bool = False) -> ValidationNumbers:
        """Score the moving average on the validation pictures; log, sample sheet, curves. `exact`: in fp32, as anyone
        would who evaluates the file."""
        began_s = time.monotonic()
        run, scale, step = self.run, self.run.generator.scale, self.state.step
        autocast = Autocast(run.device, torch.float32) if exact else run.autocast
        found, results = validation.look(run.ema, self.pairs, run.device, autocast)
        self.latest = dict(found.mean)
        if run.perceptual is not None:
            features = run.perceptual.features
            self.latest["perceptual"] = validation.perceptual_distance(
                features, self.pairs, results, scale, run.autocast
            )
        lows, highs = [pair.low for pair in self.pairs], [pair.high for pair in self.pairs]
        numbers = picture_numbers(results, lows, highs, scale, scores=self.latest, floor=self.floor)
        seen = {**as_values(numbers), **self.latest}
        self.record.log({"event": "validation", **self._when(), **seen})
        self.record.scalars(step, {f"validation/{name}": value for name, value in seen.items()})
        self.observer.validated(seen)
        self._show(results)
        self._look_s = time.monotonic() - began_s
        self._exact_look_s = self._look_s if exact else self._exact_look_s
        self._looked_s, self._looked_step = self.state.elapsed_s + self._look_s, step
        return numbers

    def _show(self, results: Sequence[Pixels]) -> None:
        """The same crops each time, and the curves."""
        shown = list(zip(self.pairs, results, strict=True))[: self.run.config.watch.samples]
        if shown:
            scale = self.run.generator.scale
            crops = [validation.sample_crop(pair, result, scale, _SAMPLE_PX) for pair, result in shown]
            self.record.sample(self.state.step, *map(list, zip(*crops, strict=True)))
        draw_curves(self.record.path, self.where / "curves.png")

    def save(self, *, good: bool = False) -> None:
        """A checkpoint, and the model as it is now. `good`: it was looked at and is well, so it is worth going back to.

        Networks that are not finite are not kept: what is kept already stays.
        """
        if not self._finite():
            self._note("the networks hold numbers that are not finite; what was kept last stays")
            return
        began_s = time.monotonic()
        self.state.log_bytes = self.record.position_bytes
        self.state.monitor = self.monitor.state()
        path = self.where / checkpoint.NAME
        try:
            checkpoint.save(path, checkpoint.capture(self.run.parts, dataclasses.asdict(self.state)))
            if good:
                checkpoint.keep(path, self.where / checkpoint.GOOD)
            self._keep(RUN_MODEL)
        except (OSError, WeightsError) as err:
            reason = (err.strerror or err) if isinstance(err, OSError) else err
            kept = "the last checkpoint is whole, and the same command goes on from it" if self._save_s else "make room"
            raise TrainingError(f"{self.where} cannot be written ({reason}); {kept}") from err
        self._save_s = time.monotonic() - began_s
        self._saved_s, self._saved_step = self.state.elapsed_s, self.state.step

    def _finite(self) -> bool:
        networks = filter(None, (self.run.generator, self.run.ema, self.run.discriminator))
        tensors = [t for network in networks for t in network.state_dict().values() if t.is_floating_point()]
        return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())

    def _keep(self, name: str) -> None:
        adversarial = self.state.phase == "adversarial" and name == RUN_MODEL
        save_weights(self.where / name, self.run.ema, _card(self, adversarial))

    def phase_begins(self) -> None:
        self.monitor.begin(self.state.phase)
        self.save(good=True)

    def went_back(self, before: State) -> None:
        """The count and the lower rate are saved at once, or a kill would forget them."""
        self.monitor.restore(before.monitor)
        self.meter = Meter()
        self._looked_s, self._looked_step = self.state.elapsed_s, self.state.step
        self.record.log(
            {"event": "resumed", **self._when(), "rollbacks": self.state.rollbacks, "rate": self.state.rate}
        )
        self.save(good=True)

    def close(self, interrupted: bool, clock: float) -> Outcome:
        """The end: of the run, or only of this session. `settle` has looked and saved."""
        state, config = self.state, self.run.config
        if not state.step and not interrupted:
            raise TrainingError(
                f"the budget was over before the first step: looking at the pictures and decoding them took "
                f"{state.elapsed_s:.0f} s. Give a longer --budget; the decoded pictures are kept"
            )
        state.scores = {"bicubic": self.floor, "model": self.latest}
        state.elapsed_s = time.monotonic() - clock
        if interrupted:
            self._note("stopped; the same command goes on from here")
        else:
            state.done = [0.0, config.budget_s] if config.budget_s is not None else [float(config.steps)]
            self.record.log({"event": "finished", **self._when(), **self.latest})
            draw_curves(self.record.path, self.where / "curves.png")
            self._report()
        self.save(good=not interrupted)
        return Outcome(self.where, self.where / RUN_MODEL, state.scores, state.step, state.elapsed_s, interrupted)

    def _report(self) -> None:
        facts = {**self._facts(resumed=False), "command": _command(), "seed": self.run.config.seed}
        write_report(self.where, to_toml(self.run.config), {**facts, "scores": {"bicubic": self.floor}})


def _without_a_start(config: TrainConfig) -> bool:
    return config.phase == "adversarial" and config.init is None


def _command() -> str:
    """What was typed, for the report."""
    return shlex.join(["srgan", *sys.argv[1:]]) if sys.argv[1:2] == ["train"] else "srgan train --config config.toml"


# ------------------------------------------------------------------------------------------------------------- pictures


def _pairs(config: TrainConfig, scan: Scan, scale: int) -> list[Pair]:
    pairs = []
    for index, picture in enumerate(scan.val):
        high = unchanged(picture.path, (picture.height, picture.width))
        if picture.low is not None:
            low, high = validation.aligned(read_pixels(picture.low), high, validation.MOST_PX, scale)
        else:
            high = validation.middle(high, validation.MOST_PX, scale)
            low = validation.degraded(high, config.degradation, scale, config.seed, index)
        pairs.append(Pair(picture.path.name, low, high))
    return pairs


def _digest(scan: Scan) -> str:
    """Tells one set of pictures from another, without reading them again."""
    names = [f"{one.path.name} {one.width} {one.height}" for one in (*scan.train, *scan.val)]
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def _card(recorder: Recorder, adversarial: bool) -> Card:
    """What the file says of itself. No paths: a model travels."""
    config = dataclasses.asdict(recorder.run.config)
    for key in ("high_dirs", "low_dirs", "val_dir", "val_low_dir", "cache_dir"):
        del config["data"][key]
    del config["perceptual"]["weights_file"], config["init"]
    name = (
        "".join(c for c in recorder.where.resolve().name if c.isprintable() and c not in "/\\:").lstrip(".")[:80]
        or "run"
    )
    scores = {
        "psnr_y_db": recorder.latest.get("psnr_y_db", math.nan),
        "ssim_y": recorder.latest.get("ssim_y", math.nan),
    }
    return Card(
        name=name,
        family=name,
        description=f"trained on {len(recorder.scan.train)} pictures, {recorder.state.step} steps",
        adversarial=adversarial,
        scores={"validation": {key: round(value, 4) for key, value in scores.items() if math.isfinite(value)}},
        recipe={
            "pictures": len(recorder.scan.train),
            "steps": recorder.state.step,
            "seconds": round(recorder.state.elapsed_s),
            "config": config,
        },
    )
