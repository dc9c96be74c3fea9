"""The training loop: scan, cache, then steps until the length is over, and a run folder that records everything.

Reading order: `train` sets a run up, `_loop` is the run, `recorder.RunRecorder` records the events. `State` holds the
run's progress, `Clock` its time.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from srgan_cli.engine.backends import pytorch
from srgan_cli.errors import DivergedError, OutOfMemoryError, SettingsError
from srgan_cli.networks.registry import RUN_MODEL
from srgan_cli.training import checkpoint, folder, preflight, processes, sources
from srgan_cli.training.clock import Clock
from srgan_cli.training.fitting import fit
from srgan_cli.training.loader import Batches
from srgan_cli.training.meter import StepPosition
from srgan_cli.training.observer import Outcome, SilentTraining, TrainingObserver
from srgan_cli.training.processes import Processes
from srgan_cli.training.recorder import Recorder, recording
from srgan_cli.training.run import Run, add_perceptual, begin, choose_compute, enter, restore, step, with_sizes_of_init
from srgan_cli.training.schedule import crop_px, place
from srgan_cli.training.state import State
from srgan_cli.training_config import GeneratorSettings, Phase, TrainConfig


def train(config: TrainConfig, where: Path, observer: TrainingObserver) -> Outcome:
    """Train with `config` in the folder `where`; or resume there, if it holds a run with the same settings.

    Raises `SettingsError`, `NothingToDoError`, `WeightsError` or `DeviceError` before the first step if training is not
    possible, and `DivergedError` after too many rollbacks. During training, SIGINT, SIGTERM and SIGHUP save and stop;
    the outcome then says so.
    """
    clock, group = Clock(config), processes.from_environment()
    _check_batches(config, group)
    preflight.check(config, where)
    observer = observer if group.first else SilentTraining()
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(folder.asked_to_stop())
        with stop.at_once():
            stack.enter_context(processes.joined(group, choose_compute(config, group)[0]))
            found = processes.first_does(lambda: _claim(stack, where, config), group)
            config = with_sizes_of_init(config) if found is None else dataclasses.replace(config, generator=found[0])
            state = State(phase=config.phases[0])
            run = begin(config, group, resuming_in=None if found is None else checkpoint.phase_of(found[1], config))
            if found is not None:
                state = _resumed(found[1], run, clock)
            if state.is_finished(config) and (where / RUN_MODEL).is_file():
                observer.note(
                    f"the run in {where} is finished; the same command with a longer --budget or more --steps "
                    "continues it"
                )
                return Outcome(where, where / RUN_MODEL, state.scores, state.step, clock.earlier_s)
            sources.check_models(run, state, where)
            # Cheapest checks first: headers of pictures, VGG19 (up to half a gigabyte), all pixels of pictures.
            pictures = sources.scanned(run, observer)
            add_perceptual(run)
            learned = sources.prepare(run, state, pictures, observer)
            observer.preparing("looking at whether a batch fits into memory")
            notes = [*learned.notes, *_fit(run, state)]
            observer.preparing("scoring what the run is compared with")
            recorder = stack.enter_context(recording(config, where, run, state, clock, pictures, observer))
            recorder.open(notes, resumed=found is not None)
        if not state.step:
            clock.begin()
            state.enter(config.phases[0], clock.begun_s)
        with _explained(run, state), Batches(run, state, learned) as batches:
            interrupted = _loop(_Session(where, run, state, clock, recorder), batches, stop)
        return recorder.close(interrupted)


def _resumed(found: dict[str, Any], run: Run, clock: Clock) -> State:
    """The state at a checkpoint. The time of a session that made no step does not count: what it prepared is kept, so
    that the next session has time to learn."""
    values = checkpoint.restore(found, run.parts)
    state = State.restored(values)
    if state.step:
        clock.resume(elapsed_s=values["elapsed_s"], begun_s=values["begun_s"])
    return state


@dataclass(frozen=True)
class _Session:
    """The objects the loop uses."""

    where: Path
    run: Run
    state: State
    clock: Clock
    recorder: Recorder


def _loop(session: _Session, batches: Batches, stop: Callable[[], bool]) -> bool:
    """Run steps until the length is over, or a stop is requested: then return True."""
    run, state, clock, recorder = session.run, session.state, session.clock, session.recorder
    back = False
    while True:
        # ---- where are we?
        here = _agreed(session, stop(), back)
        if here.back:
            _go_back(session)
            batches.restart()
            back = False
            continue
        if here.ends or here.phase != state.phase:
            # Steps after the last line of the log have not been checked yet.
            back = _settled(session, here)
            if here.ends and (here.stopping or not back):
                return here.stopping
            if back:
                continue
            enter(run, here.phase)
            state.enter(here.phase, clock.elapsed_s)
            recorder.phase_begins()
        # ---- learn
        loader = batches.loader(crop_px(run.config.of(here.phase), here.phase_fraction))
        with clock.step():
            examples = next(loader)
            stepped = step(run, state, here.phase_fraction, examples)
            state.advance()
        # ---- record
        back = recorder.after(stepped, StepPosition(here.fraction, loader.waited_s, len(examples) * run.group.world))


@dataclass(frozen=True)
class _Here:
    """The run's position, as all processes agree on it: `fraction` of the run is done, and `phase_fraction` of `phase`.

    `stopping`: a stop was requested before the end. `back`: the run must return to the last good checkpoint.
    """

    phase: Phase
    phase_fraction: float
    fraction: float
    stopping: bool
    back: bool

    @property
    def ends(self) -> bool:
        return self.stopping or self.fraction >= 1.0


def _agreed(session: _Session, stopping: bool, back: bool) -> _Here:
    """The first process decides for all, since their clocks differ; each of them may be asked to stop."""
    run, state, clock = session.run, session.state, session.clock
    began = clock.fraction_at(state.phase_began_step, state.phase_began_s)
    fraction, began, bad = processes.first_says((clock.fraction(state.step), began, float(back)), run.group)
    here = place(run.config, state.phase, fraction, began)
    # A request that comes after the last step stops nothing: the run would seem finished, with the scores of an earlier
    # validation.
    stopping = processes.anyone(stopping, run.group) and fraction < 1.0
    return _Here(here.phase, here.fraction, fraction, stopping, bool(bad))


def _settled(session: _Session, here: _Here) -> bool:
    """Before a phase or the run ends, check the remaining steps. Returns True, in all processes, if a rollback is
    needed."""
    bad = session.recorder.settle(last=here.ends and not here.stopping, validating=not here.stopping)
    return bool(processes.first_says((float(bad),), session.run.group)[0])


def _go_back(session: _Session) -> None:
    """Return to the last good checkpoint, at half the rate, and with the pictures in another order. The time spent is
    not refunded."""
    run, state = session.run, session.state
    if state.rollbacks + 1 > run.config.watch.max_rollbacks:
        raise DivergedError(
            f"training went wrong again after going back {state.rollbacks} times and halving the learning rate each "
            f"time; the last good state is kept. Start again from it at a lower rate: --init {session.where} --out NEW "
            f"--set {TrainConfig.section_of(state.phase)}.learning_rate=…, or try --precision fp32"
        )
    found = processes.first_does(lambda: checkpoint.load(session.where / folder.GOOD_NAME), run.group)
    before = State.restored(restore(run, found))
    state.go_back(before)
    session.recorder.went_back(before)


@contextlib.contextmanager
def _explained(run: Run, state: State) -> Iterator[None]:
    """Turns running out of memory during training into an error that says what to do."""
    try:
        yield
    except Exception as err:
        if not pytorch.is_out_of_memory(err):
            raise
        raise OutOfMemoryError(
            f"{run.device} is out of memory at step {state.step}, although a trial step fitted; the last "
            "checkpoint is kept. Something else may use the memory; otherwise start again with a smaller --batch"
        ) from err


# ------------------------------------------------------------------------------------------------------------- settings


def _claim(
    stack: contextlib.ExitStack, where: Path, config: TrainConfig
) -> tuple[GeneratorSettings, dict[str, Any]] | None:
    stack.enter_context(folder.claimed(where))
    return checkpoint.earlier_run(where, config)


def _fit(run: Run, state: State) -> list[str]:
    """Batches that fit into memory: determined once, and unchanged when a run resumes."""
    notes: list[str] = []
    if not state.batches:
        batches, notes = fit(run, run.group)
        state.take_batches(batches)
    for phase, batch in state.batches.items():
        settings, section = run.config.of(cast(Phase, phase)), TrainConfig.section_of(cast(Phase, phase))
        changed = dataclasses.replace(settings, batch=batch)
        run.config = dataclasses.replace(run.config, **{section: changed})  # type: ignore[arg-type]
    return notes


def _check_batches(config: TrainConfig, group: Processes) -> None:
    for phase in config.phases:
        batch = config.of(phase).batch
        if batch % group.world:
            raise SettingsError(
                f"{config.section_of(phase)}.batch, {batch}, cannot be divided evenly among {group.world} processes"
            )
