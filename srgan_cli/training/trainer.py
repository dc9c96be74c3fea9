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

import torch
from torch import Tensor

from srgan_cli.errors import DivergedError, SettingsError
from srgan_cli.training import checkpoint, degradation, folder, processes
from srgan_cli.training.cache import Cache, build_cache
from srgan_cli.training.config import Phase, TrainConfig
from srgan_cli.training.data import Batch, Crops
from srgan_cli.training.desk import Desk
from srgan_cli.training.fitting import fit
from srgan_cli.training.meter import At
from srgan_cli.training.observer import Observer, Outcome, Silent
from srgan_cli.training.processes import Processes
from srgan_cli.training.run import Run, State, begin, choose_compute, enter, make_generator, step
from srgan_cli.training.scan import Scan, scan
from srgan_cli.training.schedule import Length, crop_px, place

# After a rollback the pictures come in another order, or the same accident would happen again.
_OTHER_ORDER = 1_000_003


def train(config: TrainConfig, where: Path, observer: Observer) -> Outcome:
    """Train as `config` says, in the folder `where`; or go on there, when it holds a run of the same settings.

    Raises `SettingsError`, `NothingToDoError`, `WeightsError` or `DeviceError` before the first step for what cannot be
    trained, and `DivergedError` when training had to go back too often. SIGINT and SIGTERM save and stop; the outcome
    then says so.
    """
    clock = time.monotonic()
    team = processes.from_environment()
    if not team.first:
        observer = Silent()
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(folder.asked_to_stop())
        stack.enter_context(processes.joined(team, choose_compute(config, team)[0]))
        if team.first:
            stack.enter_context(folder.claimed(where))
        found = processes.agree_on(folder.earlier_run(where, config) if team.first else None, team)
        config = with_sizes_of_init(config) if found is None else dataclasses.replace(config, generator=found[0])
        run = begin(config, team, resuming=found is not None)
        sources = _sources(config, team, observer)
        run.config, notes = fit(run, _checked_share(config, team))
        state = State(phase=config.phases[0])
        if found is not None:
            state = State(**checkpoint.restore(found[1], run.parts))
        clock -= state.elapsed_s
        desk = stack.enter_context(Desk(config, where, run, state, sources.scan, observer)) if team.first else None
        if desk is not None:
            state.elapsed_s = time.monotonic() - clock
            desk.open(notes, resumed=found is not None)
        interrupted = _loop(run, state, sources.cache, where, desk, stop, clock)
        return desk.close(interrupted, clock) if desk is not None else _nothing(where, state)


def _loop(
    run: Run, state: State, cache: Cache, where: Path, desk: Desk | None, stop: Callable[[], bool], clock: float
) -> bool:
    """Steps until the length is over, or somebody asks to stop: then True. `clock` is when the run began."""
    config = run.config
    crops: Crops | None = None
    opened_for: tuple[Phase, int] | None = None
    back, step_s = False, 0.0
    try:
        while True:
            # ---- where are we? The first process decides for all: their clocks and signals differ.
            state.elapsed_s = time.monotonic() - clock
            length = Length(config.steps, config.budget_s, desk.reserve_s if desk is not None else 0.0)
            share = length.share(state.step, state.elapsed_s, step_s)
            share, stopping, back = _agreed(run, share, stop(), back)
            if back:
                _go_back(run, state, where, desk)
                _close(crops)
                back, crops = False, None
                continue
            if stopping or share >= 1.0:
                return bool(stopping and share < 1.0)
            here = place(config, share)
            if here.phase != state.phase:
                if desk is not None:
                    desk.phase_ends()
                enter(run, state, here.phase)
                if desk is not None:
                    desk.save()
            # ---- what to learn from
            wanted = here.phase, crop_px(config.of(here.phase), here.share)
            if crops is None or opened_for != wanted:
                _close(crops)
                crops, opened_for = open_crops(run, state, wanted[1], cache), wanted
            began_s = time.monotonic()
            batch = next(crops)
            waited_s = time.monotonic() - began_s
            low, high = pair(run, state, batch)
            # ---- learn
            stepped = step(run, state, here.share, low, high)
            state.step += 1
            state.phase_step += 1
            # ---- tell
            if desk is not None:
                back = desk.after(stepped, At(share, waited_s, len(high) * run.team.world, time.monotonic() - clock))
            step_s = 0.9 * step_s + 0.1 * (time.monotonic() - began_s) if step_s else time.monotonic() - began_s
    finally:
        _close(crops)


def _close(crops: Crops | None) -> None:
    if crops is not None:
        crops.close()


def _agreed(run: Run, share: float, stopping: bool, back: bool) -> tuple[float, bool, bool]:
    if run.team.world == 1:
        return share, stopping, back
    values = torch.tensor([share, float(stopping), float(back)], dtype=torch.float64, device=run.device)
    share, stopping_, back_ = processes.agree(values, run.team).tolist()
    return share, bool(stopping_), bool(back_)


def _go_back(run: Run, state: State, where: Path, desk: Desk | None) -> None:
    """To the last good checkpoint, at half the rate, and with the pictures in another order."""
    rollbacks, rate = state.rollbacks + 1, state.rate / 2
    if rollbacks > run.config.watch.most_rollbacks:
        raise DivergedError(
            f"training went wrong {rollbacks} times, though each time it went back and halved the learning rate; "
            f"the last good state is in {where}. Try a lower learning rate, or --precision fp32"
        )
    found = processes.agree_on(checkpoint.load(where / checkpoint.NAME) if run.team.first else None, run.team)
    before = State(**checkpoint.restore(found, run.parts))
    state.phase, state.step, state.phase_step = before.phase, before.step, before.phase_step
    state.rollbacks, state.rate = rollbacks, rate
    if desk is not None:
        desk.went_back(before)


# ----------------------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class _Sources:
    scan: Scan
    cache: Cache


def _sources(config: TrainConfig, team: Processes, observer: Observer) -> _Sources:
    """The pictures, looked at and decoded by the first process; the others then find the cache made."""
    largest_px = max(config.of(phase).crop_px for phase in config.phases)
    scale = config.generator.scale
    looked = scan(config.data, scale=scale, crop_px=largest_px, advance=observer.scanning) if team.first else None
    if looked is not None:
        observer.scanned(looked)
        build_cache(looked.train, config.data, scale=scale, crop_px=largest_px, advance=observer.caching)
    looked = processes.agree_on(looked, team)
    return _Sources(looked, build_cache(looked.train, config.data, scale=scale, crop_px=largest_px))


def open_crops(run: Run, state: State, crop_px: int, cache: Cache) -> Crops:
    """The crops from this step on: this process's share of each batch."""
    team = run.team
    return Crops(
        cache,
        seed=_seed(run, state),
        batch=run.config.of(state.phase).batch // team.world,
        crop_px=crop_px,
        scale=run.generator.scale,
        turns=run.config.data.turns,
        rank=team.rank,
        world=team.world,
        first_step=state.step,
        pin=run.device.type == "cuda",
    )


def _seed(run: Run, state: State) -> int:
    return run.config.seed + _OTHER_ORDER * state.rollbacks


def pair(run: Run, state: State, batch: Batch) -> tuple[Tensor, Tensor]:
    """A batch as the networks want it: low (N, 3, H, W) and high (N, 3, H·scale, W·scale) on the device."""
    settings = run.config.degradation
    high = _on_device(batch.high, run.device)
    if batch.low is not None:
        return _on_device(batch.low, run.device), high
    first, seed = run.team.rank * len(high), _seed(run, state)
    draws = [degradation.rng_for(seed, state.step, first + index) for index in range(len(high))]
    values = [degradation.sample(settings, draw) for draw in draws]
    low = degradation.apply(high, values, run.generator.scale).contiguous(memory_format=torch.channels_last)
    return low, degradation.sharpened(high, settings.sharpen_target) if settings.sharpen_target else high


def _on_device(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 -> float in [0, 1]."""
    moved = pixels.to(device, non_blocking=True)
    return (moved.float() / 255.0).contiguous(memory_format=torch.channels_last)


# ------------------------------------------------------------------------------------------------------------- settings


def with_sizes_of_init(config: TrainConfig) -> TrainConfig:
    """The settings with the architecture and sizes of the file that training starts from."""
    if config.init is None:
        return config
    generator = make_generator(config)
    sizes = {**dataclasses.asdict(generator.config), "architecture": generator.architecture}  # type: ignore[call-overload]
    return dataclasses.replace(config, generator=dataclasses.replace(config.generator, **sizes))


def _checked_share(config: TrainConfig, team: Processes) -> int:
    for phase in config.phases:
        batch = config.of(phase).batch
        if batch % team.world:
            raise SettingsError(f"{phase}.batch, {batch}, cannot be shared evenly by {team.world} processes")
    return team.world


def _nothing(where: Path, state: State) -> Outcome:
    return Outcome(where, where, {}, state.step, state.elapsed_s)
