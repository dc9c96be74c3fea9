"""The run folder: its ownership, an earlier run's files, and requests to stop."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from srgan_cli.errors import InterruptedRunError, SettingsError
from srgan_cli.files import lock, publish_text, reason, remove_parts, why_not_writable
from srgan_cli.networks.registry import RUN_MODEL
from srgan_cli.runlog.record import SAMPLES_NAME
from srgan_cli.training_config import TrainConfig
from srgan_cli.training_presets import from_mapping, read_toml, to_toml
from srgan_cli.upscaling.stopping import ending_signals

CONFIG_NAME = "config.toml"
CHECKPOINT_NAME = "checkpoint"
GOOD_NAME = "checkpoint.good"  # the last checkpoint that was validated without problems: the target of rollbacks
_LOCK_NAME = ".lock"
# Settings that may change when a run resumes: where and how it is computed and watched, and its length.
_FREE = ("compute", "watch", "steps", "budget_s", "preset")


@contextlib.contextmanager
def claimed(where: Path) -> Iterator[None]:
    """The folder belongs to this process inside the block. Raises `SettingsError` if another process trains in it, or
    it contains something other than a run."""
    is_new = not where.exists()
    try:
        where.mkdir(parents=True, exist_ok=True)
        _refuse_strangers(where)
        held = lock(where / _LOCK_NAME)
    except OSError as err:
        raise SettingsError(f"{where} cannot be used as a run folder: {reason(err)}") from err
    if held is None:
        raise SettingsError(f"another process is training in {where}; choose another folder with --out")
    try:
        for folder in (where, where / SAMPLES_NAME):
            remove_parts(folder)  # from a killed run: no other process writes here now
        yield
    finally:
        held.release()
        if is_new:
            with contextlib.suppress(OSError):
                where.rmdir()  # a run that was refused before it began leaves no new empty folder


def refuse(where: Path, config: TrainConfig) -> bool:
    """Raise `SettingsError` if a run of `config` cannot be stored in this folder, before anything is created in it.

    Returns whether it contains a run to resume.
    """
    existing = next(path for path in (where, *where.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise SettingsError(f"{where} cannot be used as a run folder: {existing} is not a directory")
    if (why := why_not_writable(existing)) is not None:
        raise SettingsError(f"{where} cannot be used as a run folder: {why}")
    if existing != where:
        return False
    _refuse_strangers(where)
    return earlier_settings(where, config) is not None


def _refuse_strangers(where: Path) -> None:
    # Hidden files are srgan's own (a lock, a partial file) or the system's.
    if not (where / CONFIG_NAME).exists() and any(not path.name.startswith(".") for path in where.iterdir()):
        raise SettingsError(f"{where} holds files and is not the folder of a run; choose another with --out")
    if (where / SAMPLES_NAME).is_symlink():  # previews are written there, and removed
        raise SettingsError(f"{where / SAMPLES_NAME} is a link to elsewhere; remove it, or choose another --out")


def kept(where: Path) -> Path | None:
    """The checkpoint to resume from."""
    return next((path for name in (CHECKPOINT_NAME, GOOD_NAME) if (path := where / name).exists()), None)


def earlier_settings(where: Path, config: TrainConfig) -> TrainConfig | None:
    """The settings of the run in this folder, which must agree except for those that may change; None if there is
    none."""
    if kept(where) is None:
        if (where / RUN_MODEL).exists():
            raise SettingsError(
                f"{where} holds a model but no checkpoint to resume from; begin with that model in another folder "
                f"(--init {where} --out NEW), or remove the folder"
            )
        return None
    before = from_mapping(read_toml(where / CONFIG_NAME))
    changed = differences(before, config)
    if changed:
        way = f", and --init {where} to start from what was learned here" if before.phase != config.phase else ""
        raise SettingsError(
            f"{where} holds a run with other settings ({'; '.join(changed)}); give the same ones to resume, "
            f"or choose another folder with --out{way}"
        )
    return before


def differences(before: TrainConfig, now: TrainConfig) -> list[str]:
    """`section.name: old, now new` for every setting that must not change during a run."""
    found = []
    old, new = dataclasses.asdict(before), dataclasses.asdict(now)
    for key, value in old.items():
        if key in _FREE or (key == "generator" and before.init is not None):  # with init, sizes are the file's
            continue
        pairs = [(key, value, new[key])]
        if isinstance(value, Mapping):
            pairs = [(f"{key}.{name}", item, new[key][name]) for name, item in value.items() if name != "cache_dir"]
        found += [f"{name}: {was!r}, now {is_!r}" for name, was, is_ in pairs if was != is_]
    return found


def write_config(where: Path, config: TrainConfig) -> None:
    """Write the resolved settings as TOML, atomically."""
    path = where / CONFIG_NAME
    try:
        publish_text(path, to_toml(config), own=True)
    except OSError as err:
        raise SettingsError(f"{path} cannot be written: {reason(err)}") from err


class Stop:
    """Whether SIGINT, SIGTERM or SIGHUP (terminal closed) has been received. Call it to ask."""

    def __init__(self) -> None:
        self._asked, self._interrupted = threading.Event(), threading.Event()
        self._at_once = False

    def __call__(self) -> bool:
        return self._asked.is_set()

    def note(self, number: int, _frame: object = None) -> None:
        """A signal's handler. The first one asks to save and stop; a second Ctrl-C takes effect immediately. A second
        SIGTERM does not: launchers send it to all processes, and so do their own launchers."""
        self._asked.set()
        again = number == signal.SIGINT and self._interrupted.is_set()
        if number == signal.SIGINT:
            self._interrupted.set()
        if again or self._at_once:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside the block there is nothing to save yet: any of the signals ends it, with `InterruptedRunError`."""
        self._at_once = True
        try:
            yield
        except KeyboardInterrupt as err:
            raise InterruptedRunError(
                "stopped while preparing, before any step; nothing is lost, and the same command resumes"
            ) from err
        finally:
            self._at_once = False


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Stop]:
    """Whether a stop has been requested, inside the block. Ignored signals (`nohup`) stay ignored. Signals can be
    handled only in the main thread; in other threads a stop is never requested."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.note) for number in (signal.SIGINT, *ending_signals())}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            # None: its handler was not set by Python
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
