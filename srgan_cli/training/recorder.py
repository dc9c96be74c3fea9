"""Logging, validation, monitoring and checkpoints during a run, done by the first process; the others do nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, cast

import torch
from PIL import Image

from srgan_cli.dataset.scan import Scan
from srgan_cli.dataset.wear_files import save_wear
from srgan_cli.dataset.wear_header import WEAR_NAME
from srgan_cli.errors import TrainingError, WeightsError
from srgan_cli.evaluation.evaluate import SPREAD
from srgan_cli.imaging.image import Pixels
from srgan_cli.networks.registry import RUN_MODEL
from srgan_cli.networks.weights import save_weights
from srgan_cli.runlog.record import RunRecord, publish_png
from srgan_cli.runlog.report import TEACHER_NAME, WEAR_SHEET_NAME, write_report
from srgan_cli.training import checkpoint, folder, validation, with_noise
from srgan_cli.training.clock import Clock
from srgan_cli.training.facts import card, command, digest, facts
from srgan_cli.training.likeness import Likeness
from srgan_cli.training.meter import Meter, StepPosition
from srgan_cli.training.monitor import DiscriminatorNumbers, Finding, Monitor
from srgan_cli.training.observer import Outcome, Progress, TrainingObserver
from srgan_cli.training.picture_numbers import ValidationNumbers, as_values, picture_numbers
from srgan_cli.training.run import Run
from srgan_cli.training.state import State
from srgan_cli.training.steps import Autocast, Stepped
from srgan_cli.training.wear_numbers import WearNumbers
from srgan_cli.training.wear_validation import WearValidation
from srgan_cli.training_config import TrainConfig
from srgan_cli.training_presets import to_toml

# the result of phase 1, beside the adversarial one, so that the two can be interpolated
FIDELITY_MODEL = "fidelity.safetensors"
# Maximum fraction of the time spent on validation, whatever interval is configured.
_VALIDATION_FRACTION = 0.05
_SAMPLE_PX = 192
_PATIENCE, _PATIENCE_STEPS = 2, 40  # consecutive log lines, and steps, that a scaler's overflows may affect
_REPORT_S = 0.5


class Recorder(Protocol):
    """Receives the training loop's events. If a method returns True, the run must return to the last checkpoint."""

    def open(self, notes: Sequence[str], *, resumed: bool) -> None:
        """The first step follows. `notes` come from setting up."""

    def after(self, stepped: Stepped, at: StepPosition) -> bool:
        """A step has been made."""

    def settle(self, *, last: bool, validating: bool) -> bool:
        """A phase is about to end, and with it the run if it is the `last`."""

    def phase_begins(self) -> None:
        """The state has entered another phase."""

    def went_back(self, before: State) -> None:
        """The run has returned to the state `before`."""

    def close(self, interrupted: bool) -> Outcome:
        """The run ends, or only this session of it."""


@contextlib.contextmanager
def recording(
    config: TrainConfig, where: Path, run: Run, state: State, clock: Clock, scan: Scan, observer: TrainingObserver
) -> Iterator[Recorder]:
    """This process's recorder, inside the block: one process writes, the others do nothing."""
    if not run.group.first:
        yield SilentRecorder(where, state, clock)
        return
    recorder = RunRecorder(config, where, run, state, clock, scan, observer)
    try:
        yield recorder
    finally:
        recorder.record.close()


class SilentRecorder:
    """For all processes but the first: writes nothing, and never requests a rollback."""

    def __init__(self, where: Path, state: State, clock: Clock) -> None:
        self._where, self._state, self._clock = where, state, clock

    def open(self, notes: Sequence[str], *, resumed: bool) -> None:
        pass

    def after(self, stepped: Stepped, at: StepPosition) -> bool:
        return False

    def settle(self, *, last: bool, validating: bool) -> bool:
        return False

    def phase_begins(self) -> None:
        pass

    def went_back(self, before: State) -> None:
        pass

    def close(self, interrupted: bool) -> Outcome:
        return Outcome(self._where, self._where / RUN_MODEL, {}, self._state.step, self._clock.elapsed_s, interrupted)


class RunRecorder:
    """The recorder that writes."""

    def __init__(
        self,
        config: TrainConfig,
        where: Path,
        run: Run,
        state: State,
        clock: Clock,
        scan: Scan,
        observer: TrainingObserver,
    ) -> None:
        self.where, self.run, self.state, self.clock = where, run, state, clock
        self.scan, self.observer = scan, observer
        self.pairs = validation.held_out(config, scan, run.generator.scale)
        self.baseline = dict(validation.baseline(self.pairs, run.generator.scale).mean)
        self.likeness = Likeness(run, run.teacher, self.pairs) if run.teacher is not None and self.pairs else None
        if self.likeness is not None:
            self.baseline |= self.likeness.measure_bicubic(run)
        self.wear = None if run.adaptation is None else WearValidation(run, run.adaptation, scan, self.pairs)
        scaled = run.learner.scaler.is_enabled()  # the scaler skips such steps by itself
        self.monitor = Monitor(
            config.adversarial.objective,
            patience=_PATIENCE if scaled else 1,
            patience_steps=_PATIENCE_STEPS if scaled else 0,
            gap_db=self.likeness.gap_db if self.likeness is not None else 0.0,
        )
        self.meter = Meter()
        self.latest: dict[str, float] = {}
        self.worn: WearNumbers | None = None
        self.drawn: dict[str, float] = {}  # with noise, where it is learned
        self._speeds: dict[str, float] = {}
        folder.write_config(where, config)
        self.record = RunRecord(where, resume_bytes=state.log_bytes or None, note=observer.note)
        # Duration of the last validation, of the last one in fp32, and of the last save.
        self._validation_s = self._exact_validation_s = self._save_s = 0.0
        self._validated_s = self._saved_s = clock.elapsed_s
        self._validated_step = self._saved_step = state.step

    # ---------------------------------------------------------------------------------------------------- the beginning

    def open(self, notes: Sequence[str], *, resumed: bool) -> None:
        """Report what will be done, validate, and save a first checkpoint, so that there is one to return to, and a
        full disk is noticed immediately."""
        found = {**facts(self.run, self.state, self.scan), "resumed_at": self.state.step if resumed else None}
        self.record.log({"event": "resumed" if resumed else "started", **self._when(), **found})
        self.observer.started(found)
        for sentence in notes:
            self._note(sentence)
        if _without_a_start(self.run.config) and not resumed:
            self._note("the adversarial phase begins with an untrained network; --init starts it from a trained one")
        if resumed:
            self.monitor.restore(self.state.monitor)
        else:
            self.monitor.begin(self.state.phase)
        if not self.state.take_pictures(digest(self.scan)):
            self._note("the pictures have changed since this run began, and with them their order and the scores")
        numbers = self.validate(exact=True)
        if not resumed:
            self.monitor.validation(self.state.step, numbers)
            self.save(good=True)
        self.meter = Meter()

    def _when(self) -> dict[str, object]:
        return {"phase": self.state.phase, "step": self.state.step, "seconds": round(self.clock.elapsed_s, 3)}

    def _note(self, sentence: str) -> None:
        self.record.log({"event": "note", **self._when(), "text": sentence})
        self.observer.note(sentence)

    # -------------------------------------------------------------------------------------------------- after each step

    def after(self, stepped: Stepped, at: StepPosition) -> bool:
        """Record a step, and do what is due."""
        self.meter.add(stepped, at)
        watch = self.run.config.watch
        validating = self._due(
            self._validated_s, self._validated_step, self._validate_every_s, watch.validate_every_steps
        )
        saving = self._due(self._saved_s, self._saved_step, watch.checkpoint_every_s, watch.checkpoint_every_steps)
        if not (validating or saving or self.state.step % watch.log_every_steps == 0):
            return False
        if self._judge(self._log(at)):
            return True
        if validating and self._judge_validation():
            return True
        if saving or validating:
            self.save(good=validating)
            self.meter = Meter()  # the speed of training, without validating and saving
        return False

    def settle(self, *, last: bool, validating: bool) -> bool:
        """Log and check the steps after the last line, and validate once more, in fp32 at the very end."""
        if self.meter.steps and self._judge(self._log(self.meter.at)):
            return True
        if validating and self._judge_validation(exact=last):
            return True
        self.save(good=validating)
        if validating and not last:
            self._phase_is_over()
        self.meter = Meter()
        return False

    def _phase_is_over(self) -> None:
        if self.state.phase == "fidelity":
            self._keep(FIDELITY_MODEL)
        elif self.worn is not None:
            self._note(self.worn.sentence)

    @property
    def _validate_every_s(self) -> float:
        return max(self.run.config.watch.validate_every_s, self._validation_s / _VALIDATION_FRACTION)

    def _due(self, last_s: float, last_step: int, every_s: float, every_steps: int) -> bool:
        if every_steps:
            return self.state.step - last_step >= every_steps
        return self.clock.elapsed_s - last_s >= every_s

    def _log(self, at: StepPosition) -> list[Finding]:
        """Log the means since the last line, and the monitor's findings."""
        means = self.meter.means()
        speed = self.meter.speed()
        self.meter = Meter()
        line: dict[str, object] = {
            **self._when(),
            "fraction": round(at.fraction, 5),
            "learning_rate": self.run.learner_in(self.state.phase).optimizer.param_groups[0]["lr"],
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
                seconds_left=self.clock.seconds_left(self.state.step, speed["steps_per_s"]),
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

    def _judge(self, findings: Sequence[Finding]) -> bool:
        for finding in findings:
            kind = "rollback" if finding.roll_back else "note"
            self.record.log({"event": kind, **self._when(), "kind": finding.kind, "text": finding.sentence})
            self.observer.note(finding.sentence)
        return any(finding.roll_back for finding in findings)

    def _judge_validation(self, *, exact: bool = False) -> bool:
        numbers = self.validate(exact=exact)
        findings = self.monitor.validation(self.state.step, numbers)
        findings += self.monitor.wear(self.state.step, self.worn) if self.worn is not None else []
        findings += self.monitor.noise(self.state.step, self.drawn[SPREAD]) if self.drawn else []
        return self._judge(findings)

    # -------------------------------------------------------------------------------------- validating, keeping, ending

    def validate(self, *, exact: bool = False) -> ValidationNumbers:
        """Score the moving average on the validation pictures; log, sample sheet, report. `exact`: in fp32, as in
        evaluating the file."""
        began_s = self.clock.elapsed_s
        run, scale = self.run, self.run.generator.scale
        autocast = Autocast(run.device, torch.float32) if exact else run.autocast
        if self.wear is not None:
            self._validate_wear(self.wear)
        found, results = validation.validate(run.ema, self.pairs, run.device, autocast)
        self.latest = dict(found.mean)
        if run.perceptual is not None:
            features = run.perceptual.features
            self.latest["perceptual"] = validation.perceptual_distance(
                features, self.pairs, results, scale, run.autocast
            )
        if self.likeness is not None:
            self.latest |= self._liken(self.likeness, autocast)
        lows, highs = [pair.low for pair in self.pairs], [pair.high for pair in self.pairs]
        numbers = picture_numbers(results, lows, highs, scale, scores=self.latest, baseline=self.baseline)
        values = {**as_values(numbers), **self.latest}
        beside = {"wear": self.worn.plain()} if self.worn is not None else {}
        if run.generator.has_noise and "adversarial" in run.config.phases:
            beside["with_noise"] = self.drawn = with_noise.measure(run, self.pairs, autocast)
        self.record.log({"event": "validation", **self._when(), **values, **beside})
        self.record.scalars(self.state.step, {f"validation/{name}": value for name, value in values.items()})
        self.record.scalars(self.state.step, {f"with_noise/{name}": value for name, value in self.drawn.items()})
        self.observer.validated(values)
        self._show(results)
        self._validated_s, self._validated_step = self.clock.elapsed_s, self.state.step
        self._validation_s = self._validated_s - began_s
        self._exact_validation_s = self._validation_s if exact else self._exact_validation_s
        self._keep_time_back()
        return numbers

    def _validate_wear(self, wear: WearValidation) -> None:
        """Wear the held-out pictures with the current wearer, and draw a sheet of them beside real worn ones."""
        self.pairs = wear.pairs()
        self.baseline = dict(validation.baseline(self.pairs, self.run.generator.scale).mean)
        self.worn = wear.numbers(self.run)
        sheet = wear.sheet(self.run, self.run.config.watch.samples)
        if sheet is not None:
            publish_png(Image.fromarray(sheet), self.where / WEAR_SHEET_NAME)

    def _liken(self, likeness: Likeness, autocast: Autocast) -> dict[str, float]:
        """Measure how close the student is to its teacher, and draw a sheet of both."""
        values, results = likeness.measure(self.run, autocast)
        sheet = likeness.sheet(results, self.run.config.watch.samples)
        if sheet is not None:
            publish_png(Image.fromarray(sheet), self.where / TEACHER_NAME)
        return values

    def _keep_time_back(self) -> None:
        """Reserve time for the work after the last step: a validation in fp32 as long as the first one, a checkpoint,
        the model, the report, and measuring the teacher's speed."""
        teacher_s = 2 * self.likeness.piece_s if self.likeness is not None else 0.0
        self.clock.keep_back(self._exact_validation_s + self._save_s + _REPORT_S + teacher_s)

    def _show(self, results: Sequence[Pixels]) -> None:
        """Write the samples, the same crops each time, and the current report."""
        shown = list(zip(self.pairs, results, strict=True))[: self.run.config.watch.samples]
        if shown:
            scale = self.run.generator.scale
            crops = [validation.sample_crop(pair, result, scale, _SAMPLE_PX) for pair, result in shown]
            self.record.sample(self.state.step, *map(list, zip(*crops, strict=True)))
        self._report()

    def save(self, *, good: bool = False) -> None:
        """Save a checkpoint, and the current model. `good`: it was validated without problems, so it can be returned
        to.

        Networks that are not finite are not saved; the earlier files stay.
        """
        if not self._finite():
            self._note("the networks hold numbers that are not finite; the last saved state is kept")
            return
        began_s = self.clock.elapsed_s
        self.state.note(self.record.position_bytes, self.monitor.state())
        path = self.where / folder.CHECKPOINT_NAME
        try:
            checkpoint.save(path, checkpoint.capture(self.run.parts, {**self.state.values, **self.clock.values}))
            if good:
                checkpoint.keep(path, self.where / folder.GOOD_NAME)
            self._keep(RUN_MODEL)
        except (OSError, WeightsError) as err:
            reason = (err.strerror or err) if isinstance(err, OSError) else err
            kept = (
                "the last checkpoint is intact; the same command resumes from it" if self._save_s else "free some space"
            )
            raise TrainingError(f"{self.where} cannot be written ({reason}); {kept}") from err
        self._saved_s, self._saved_step = self.clock.elapsed_s, self.state.step
        self._save_s = self._saved_s - began_s
        self._keep_time_back()

    def _finite(self) -> bool:
        tensors = [t for network in self.run.networks for t in network.state_dict().values() if t.is_floating_point()]
        return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())

    def _keep(self, name: str) -> None:
        adversarial = self.state.phase == "adversarial" and name == RUN_MODEL
        about = card(self.where, self.run, self.state, self.clock, self.scan, self.latest, adversarial=adversarial)
        save_weights(self.where / name, self.run.ema, about)
        if self.run.adaptation is not None and name == RUN_MODEL:
            learned = self.run.adaptation
            save_wear(self.where / WEAR_NAME, learned.ema, learned.signs, grey=learned.grey)

    def phase_begins(self) -> None:
        self.monitor.begin(self.state.phase)
        self.save(good=True)

    def went_back(self, before: State) -> None:
        """The count and the lower rate are saved immediately, so that a kill does not lose them."""
        self.monitor.restore(before.monitor)
        self.meter = Meter()
        self._validated_s, self._validated_step = self.clock.elapsed_s, self.state.step
        self.record.log(
            {"event": "resumed", **self._when(), "rollbacks": self.state.rollbacks, "rate": self.state.rate}
        )
        self.save(good=True)

    def close(self, interrupted: bool) -> Outcome:
        """`settle` has validated and saved."""
        state, config = self.state, self.run.config
        if not state.step and not interrupted:
            taught = "" if self.run.teacher is None or self.run.teacher.inline else " and the teacher's results"
            raise TrainingError(
                f"the budget was over before the first step: the pictures, the networks{taught} and the first scores "
                f"took {self.clock.elapsed_s:.0f} s. Give a longer --budget; the decoded pictures{taught} are kept"
            )
        state.score({"bicubic": self.baseline, "model": self.latest, **self._scores_with_noise})
        if interrupted:
            self.record.log({"event": "note", **self._when(), "text": "stopped; the same command resumes from here"})
        else:
            state.finish(config)
            self.record.log({"event": "finished", **self._when(), **self.latest})
            if self.likeness is not None:
                speeds = self.likeness.speeds(self.run, self.where / RUN_MODEL)
                self._speeds = {"student_px_per_s": speeds.student, "teacher_px_per_s": speeds.teacher}
                self.record.log({"event": "speeds", **self._when(), **self._speeds})
            self._report()
        self.save(good=not interrupted)
        return Outcome(self.where, self.where / RUN_MODEL, state.scores, state.step, self.clock.elapsed_s, interrupted)

    @property
    def _scores_with_noise(self) -> dict[str, dict[str, float]]:
        return {"with noise": self.drawn} if self.drawn else {}

    def _report(self) -> None:
        about = {**facts(self.run, self.state, self.scan), "command": command(), "seed": self.run.config.seed}
        about |= {"wear": self.worn.plain() if self.worn is not None else None}
        about |= {"likeness": len(self.likeness.taught) if self.likeness is not None else None}
        about |= {"speeds": self._speeds or None, "scores": {"bicubic": self.baseline, **self._scores_with_noise}}
        write_report(self.where, to_toml(self.run.config), about)


def _without_a_start(config: TrainConfig) -> bool:
    return config.phase == "adversarial" and config.init is None
