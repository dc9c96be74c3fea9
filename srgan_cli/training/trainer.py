"""The training loop: scan, cache, then steps until the length is over, and a run folder that tells all of it.

Reading order: `train` sets a run up, `_loop` is the run, `desk.Desk` writes down what happens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from srgan_cli.dataset.cache import Cache, build_cache
from srgan_cli.dataset.scan import Scan, scan
from srgan_cli.errors import DivergedError, OutOfMemoryError, SettingsError
from srgan_cli.networks.registry import RUN_MODEL
from srgan_cli.training import checkpoint, folder, processes
from srgan_cli.training.fitting import fit
from srgan_cli.training.loader import BatchLoader
from srgan_cli.training.meter import At
from srgan_cli.training.observer import Observer, Outcome, Silent
from srgan_cli.training.processes import Processes
from srgan_cli.training.recorder import Recorder
from srgan_cli.training.run import Run, State, begin, choose_compute, enter, step, with_sizes_of_init
from srgan_cli.training.schedule import Length, crop_px, place
from srgan_cli.training_config import GeneratorSettings, Phase, TrainConfig
from srgan_cli.upscaling import backends


def train(config: TrainConfig, where: Path, observer: Observer) -> Outcome:
    """Train as `config` says, in the folder `where`; or go on there, when it holds a run of the same settings.

    Raises `SettingsError`, `NothingToDoError`, `WeightsError` or `DeviceError` before the first step for what cannot be
    trained, and `DivergedError` when training had to go back too often. Once it trains, SIGINT, SIGTERM and SIGHUP save
    and stop; the outcome then says so.
    """
    clock = time.monotonic()
    group = processes.from_environment()
    _check_fractions(config, group)
    if not group.first:
        observer = Silent()
    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.joined(group, choose_compute(config, group)[0]))
        found = processes.first_does(lambda: _claim(stack, where, config), group)
        config = with_sizes_of_init(config) if found is None else dataclasses.replace(config, generator=found[0])
        run = begin(config, group, resuming=found is not None)
        state = State(phase=config.phases[0])
        if found is not None:
            state = State(**checkpoint.restore(found[1], run.parts))
        if state.done == _length(config) and (where / RUN_MODEL).is_file():
            observer.note(f"{where} holds this run, finished; a longer one goes on from it")
            return Outcome(where, where / RUN_MODEL, state.scores, state.step, state.elapsed_s)
        sources = _sources(config, group, observer)
        notes = _fit(run, state)
        clock -= state.elapsed_s
        state.elapsed_s = time.monotonic() - clock
        stop = stack.enter_context(folder.asked_to_stop())
        recorders: list[Recorder] = []
        if group.first:
            recorders.append(stack.enter_context(Recorder(config, where, run, state, sources.scan, observer)))
            recorders[0].open(notes, resumed=found is not None)
        recorder = recorders[0] if recorders else None
        if found is None:
            state.begun_s = state.phase_began_s = time.monotonic() - clock
        try:
            interrupted = _loop(run, state, sources.cache, where, recorder, stop, clock)
        except Exception as err:
            if not backends.is_out_of_memory(err):
                raise
            raise OutOfMemoryError(
                f"{run.device} is out of memory at step {state.step}, though a step was tried before; the last "
                "checkpoint is kept. Something else may use the memory; else begin anew with a smaller --batch"
            ) from err
        if recorder is None:
            return Outcome(where, where / RUN_MODEL, {}, state.step, state.elapsed_s, interrupted)
        return recorder.close(interrupted, clock)


def _loop(
    run: Run, state: State, cache: Cache, where: Path, recorder: Recorder | None, stop: Callable[[], bool], clock: float
) -> bool:
    """Steps until the length is over, or somebody asks to stop: then True. `clock` is when the run began."""
    config = run.config
    loader: BatchLoader | None = None
    fed_for: tuple[Phase, int] | None = None
    back, step_s = False, 0.0
    try:
        while True:
            # ---- where are we? The first process decides for all: their clocks differ.
            state.elapsed_s = time.monotonic() - clock
            length = _length_now(config, state, recorder)
            fraction = length.fraction(state.step, state.elapsed_s, step_s)
            fraction, stopping, back = processes.agreed(fraction, stop(), back, run.group)
            if back:
                _go_back(run, state, where, recorder)
                _close(loader)
                back, loader = False, None
                continue
            here = place(config, state.phase, fraction, length.fraction(state.phase_began_step, state.phase_began_s))
            ending = stopping or fraction >= 1.0
            if ending or here.phase != state.phase:
                # What came after the last line of the log has been judged by nobody yet.
                bad = recorder is not None and recorder.settle(last=ending and not stopping, looking=not stopping)
                _, _, back = processes.agreed(fraction, stopping, bad, run.group)
                if ending and (stopping or not back):
                    return stopping and fraction < 1.0
                if back:
                    continue
                enter(run, state, here.phase)
                if recorder is not None:
                    recorder.phase_begins()
            # ---- what to learn from
            wanted = here.phase, crop_px(config.of(here.phase), here.fraction)
            if loader is None or fed_for != wanted:
                _close(loader)
                loader, fed_for = BatchLoader(run, state, wanted[1], cache), wanted
            began_s, waited_s = time.monotonic(), loader.wait_s
            low, high = next(loader)
            # ---- learn
            stepped = step(run, state, here.fraction, low, high)
            state.step += 1
            state.phase_step += 1
            now_s = time.monotonic()
            step_s = 0.9 * step_s + 0.1 * (now_s - began_s) if step_s else now_s - began_s
            # ---- tell
            if recorder is not None:
                at = At(fraction, loader.wait_s - waited_s, len(high) * run.group.world, now_s - clock)
                back = recorder.after(stepped, at)
    finally:
        _close(loader)


def _close(loader: BatchLoader | None) -> None:
    if loader is not None:
        loader.close()


def _length_now(config: TrainConfig, state: State, recorder: Recorder | None) -> Length:
    return Length(config.steps, config.budget_s, recorder.reserve_s if recorder is not None else 0.0, state.begun_s)


def _length(config: TrainConfig) -> list[float]:
    """What tells a run's length from another, for the checkpoint of a finished one."""
    return [0.0, config.budget_s] if config.budget_s is not None else [float(config.steps)]


def _go_back(run: Run, state: State, where: Path, recorder: Recorder | None) -> None:
    """To the last good checkpoint, at half the rate, and with the pictures in another order. Time is not given back."""
    rollbacks, rate = state.rollbacks + 1, state.rate / 2
    if rollbacks > run.config.watch.max_rollbacks:
        raise DivergedError(
            f"training went wrong again after going back {state.rollbacks} times and halving the learning rate each "
            f"time; the last good state is kept. Begin anew from it at a lower rate: --init {where} --out NEW --set "
            f"{state.phase}.learning_rate=…, or try --precision fp32"
        )
    found = processes.first_does(lambda: checkpoint.load(where / checkpoint.GOOD), run.group)
    before = State(**checkpoint.restore(found, run.parts))
    for name in ("phase", "step", "phase_step", "phase_began_step", "phase_began_s"):
        setattr(state, name, getattr(before, name))
    state.rollbacks, state.rate = rollbacks, rate
    if recorder is not None:
        recorder.went_back(before)


# ----------------------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class _Sources:
    scan: Scan
    cache: Cache


def _sources(config: TrainConfig, group: Processes, observer: Observer) -> _Sources:
    """The pictures, looked at and decoded by the first process; the others then find the cache made."""
    largest_px = max(config.of(phase).crop_px for phase in config.phases)
    scale = config.generator.scale

    def prepare() -> Scan:
        looked = scan(config.data, scale=scale, crop_px=largest_px, advance=observer.scanning)
        observer.scanned(looked)
        build_cache(looked.train, config.data, scale=scale, crop_px=largest_px, advance=observer.caching)
        return looked

    looked = processes.first_does(prepare, group)
    return _Sources(looked, build_cache(looked.train, config.data, scale=scale, crop_px=largest_px))


# ------------------------------------------------------------------------------------------------------------- settings


def _claim(
    stack: contextlib.ExitStack, where: Path, config: TrainConfig
) -> tuple[GeneratorSettings, dict[str, Any]] | None:
    stack.enter_context(folder.claimed(where))
    return folder.earlier_run(where, config)


def _fit(run: Run, state: State) -> list[str]:
    """Batches that fit into memory: found out once, and the same ones when a run goes on."""
    notes: list[str] = []
    if not state.batches:
        batches, notes = fit(run, run.group)
        state.batches = {str(phase): batch for phase, batch in batches.items()}
    for phase, batch in state.batches.items():
        settings = run.config.of(cast(Phase, phase))
        changed = dataclasses.replace(settings, batch=batch)
        run.config = dataclasses.replace(run.config, **{phase: changed})  # type: ignore[arg-type]
    return notes


def _check_fractions(config: TrainConfig, group: Processes) -> None:
    for phase in config.phases:
        batch = config.of(phase).batch
        if batch % group.world:
            raise SettingsError(f"{phase}.batch, {batch}, cannot be shared evenly by {group.world} processes")
