"""A folder that is watched: new pictures are enlarged as they arrive, until it is stopped.

    events, or the clock ──> scan ──> at rest? ──> a batch ──> plan and run, as `srgan upscale --resume` does
                               ^                                  │
                               └───── changed, or to be retried ── what failed

Events only say when to scan. What to do follows from the scan, so a lost event does no harm.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from srgan_cli import stored
from srgan_cli.config import UpscaleOptions
from srgan_cli.engine.held import Upscalers
from srgan_cli.errors import DefectError, PictureError, SettingsError, UnreadablePictureError, shown
from srgan_cli.files import publish_text
from srgan_cli.upscaling.inputs import Failure, InputFile, pictures_below
from srgan_cli.upscaling.observer import Observer
from srgan_cli.upscaling.session import Session, prepare
from srgan_cli.upscaling.settling import Events, FileStamp, Settling, network_drive, see

FAILED_FILE = ".srgan-failed.jsonl"
_BATCH = 64  # pictures per plan
_LOOK_S = 60.0  # interval between scans, with or without events
_NETWORK_LOOK_S = 5.0
_NAP_S = 0.5
_MIN_S, _SCAN_FRACTION = 0.2, 0.2  # scanning takes at most a fifth of the time
_AGAIN_S, _MAX_AGAIN_S = 30.0, 3600.0


@dataclass(frozen=True)
class WatchOptions:
    """Settings of one `srgan watch`: `pictures` holds the options for each picture; its input is the watched folder,
    its output another.

    A file is complete when it has not changed for `settle_s`. `poll_s`: scan at this interval instead of waiting for
    events.
    """

    folder: Path
    output: Path
    pictures: UpscaleOptions
    recursive: bool = True
    settle_s: float = 2.0
    poll_s: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.settle_s <= 3600:
            raise SettingsError(f"--settle must be between 0 and 3600 seconds, not {self.settle_s:g}")
        if self.poll_s is not None and not 0 < self.poll_s <= 86_400:
            raise SettingsError(f"--poll must be a number of seconds above 0, not {self.poll_s:g}")
        if not self.folder.is_dir():
            raise SettingsError(f"{shown(self.folder)} is not a folder; srgan watch waits for pictures in a folder")
        if self.output.exists() and not self.output.is_dir():
            raise SettingsError(f"-o {shown(self.output)} is a file; srgan watch needs a folder for its results")
        if self.folder.resolve().is_relative_to(self.output.resolve()):
            raise SettingsError(
                f"-o {shown(self.output)} is or contains the watched folder, so results would be mistaken for new "
                "pictures; give another folder (it may be inside the watched one)"
            )
        pattern = self.pictures.name_pattern
        if pattern is not None and ("{stem}" not in pattern or "{index}" in pattern):
            raise SettingsError("--name must contain {stem} here and not {index}: pictures arrive one at a time")

    @property
    def upscaling(self) -> UpscaleOptions:
        return replace(
            self.pictures, inputs=(self.folder,), output=self.output, output_is_folder=True, recursive=self.recursive,
            resume=True,
        )  # fmt: skip


class Reporter(Protocol):
    """Receives the progress of a watch."""

    def batch(self, session: Session) -> AbstractContextManager[Observer]:
        """A batch of pictures is about to be enlarged."""

    def note(self, sentence: str) -> None: ...

    def failed(self, sources: Sequence[Path]) -> None:
        """All pictures that have failed and not succeeded since, each time the list changes."""


def watch(options: WatchOptions, reporter: Reporter, *, is_over: Callable[[], bool] = lambda: False) -> int:
    """Watch until `KeyboardInterrupt`, or until `is_over`, which is called twice a second and between batches. Returns
    the number of pictures made. No partial results are left.

    Raises `SettingsError` for invalid options, and `WeightsError` or `DeviceError` if no picture can be enlarged.
    """
    watching = _Watching(options, reporter, is_over)
    try:
        watching.run()
    except KeyboardInterrupt:
        pass
    finally:
        watching.close()
    return watching.made


class _Watching:
    def __init__(self, options: WatchOptions, reporter: Reporter, is_over: Callable[[], bool]) -> None:
        self._options, self._reporter, self._is_over = options, reporter, is_over
        self._pictures = options.upscaling
        self._upscalers = Upscalers()
        self.made = 0
        key = prepare(self._pictures, found=()).settings_key  # also refuses invalid options
        drive = network_drive(options.folder)
        self._look_s = options.poll_s or (_NETWORK_LOOK_S if drive else _LOOK_S)
        self._events: Events | None = None
        if options.poll_s is None and drive is None:
            self._events = self._new_events()
        if options.poll_s is None and drive is not None:
            reporter.note(f"{shown(options.folder)} is on a network drive ({drive}): checking every {self._look_s:g} s")
        self._settling = Settling(options.settle_s, trusts_times=self._events is not None)
        self._failed = _Failed(options.output / FAILED_FILE, options.folder, key)
        self._is_there = True

    def _new_events(self) -> Events:
        return Events(self._options.folder, self._options.output.resolve(), recursive=self._options.recursive)

    def run(self) -> None:
        for path, stamp in self._failed.unchanged().items():
            self._settling.done_with(path, stamp)
        if self._failed.sources():
            self._reporter.failed(self._failed.sources())
        while not self._is_over():
            began = time.monotonic()
            seen = self._scan()
            scan_s = time.monotonic() - began
            for path in self._failed.due():
                self._settling.again(path)
            ready = self._settling.update(seen)
            # one batch, then another scan: of thousands of files, many may have been renamed or removed meanwhile
            if ready:
                self._make(_first_batch(ready, seen), seen)
            self._failed.keep(seen)
            if not ready:
                self._wait(max(_MIN_S, scan_s / _SCAN_FRACTION))

    def close(self) -> None:
        if self._events is not None:
            self._events.close()

    # -------------------------------------------------------------------------------------------------------- scanning

    def _scan(self) -> dict[Path, FileStamp]:
        """All pictures that exist now. If the folder has disappeared (an unmounted drive), wait for it."""
        there = self._options.folder.is_dir()
        if there != self._is_there:
            self._is_there = there
            name = shown(self._options.folder)
            self._reporter.note(f"{name} is back" if there else f"{name} has disappeared; waiting for it to come back")
        if not there:
            return {}
        self._mend_events()
        return see(one.source for one in pictures_below(self._options.folder, self._pictures))

    def _mend_events(self) -> None:
        if self._events is None or self._events.broken is None:
            return
        reason, self._events = self._events.broken, None
        if "gone" in reason or "No such file" in reason:
            self._events = self._new_events()
            return
        self._look_s = _NETWORK_LOOK_S
        self._reporter.note(f"change notifications have stopped ({shown(reason)}): checking every {self._look_s:g} s")

    def _wait(self, min_s: float) -> None:
        """Wait until there may be something to do, but long enough that scanning costs little."""
        time.sleep(min_s)
        waits = [self._look_s, self._settling.seconds_left(), self._failed.seconds_left()]
        if not self._is_there:
            waits.append(_NETWORK_LOOK_S)
        end = time.monotonic() + min(wait for wait in waits if wait is not None) - min_s
        while not self._is_over() and (left := end - time.monotonic()) > 0:
            if self._events is None:
                time.sleep(min(left, _NAP_S))
            elif self._events.wait(min(left, _NAP_S)):
                return

    # ---------------------------------------------------------------------------------------------------------- making

    def _make(self, batch: _Batch, seen: dict[Path, FileStamp]) -> None:
        """Plan and run one batch. If it is refused, run each of its pictures alone, so that only the faulty ones
        fail."""
        found = [InputFile(path, self._options.folder) for path in batch.all]
        try:
            session = prepare(self._pictures, found=found, upscalers=self._upscalers)
        except SettingsError as err:
            if len(batch.groups) > 1:
                for group in batch.groups:
                    self._make(_Batch((group,), batch.new), seen)
                return
            self._conclude(batch, [Failure(path, err.sentence, SettingsError) for path in batch.all], seen)
            return
        with self._reporter.batch(session) as observer:
            tally = session.run(observer)
        self.made += len(tally.done)
        if tally.error is not None:
            raise tally.error
        if tally.interrupted:
            raise KeyboardInterrupt
        self._conclude(batch, tally.failures, seen)

    def _conclude(self, batch: _Batch, failures: Sequence[Failure], seen: dict[Path, FileStamp]) -> None:
        """Keep what has failed in the list, unless it has disappeared or changed meanwhile: a changed file is processed
        again."""
        failed = {failure.source: failure for failure in failures}
        now = see(batch.all)
        for path in batch.all:
            if path in batch.new:
                self._settling.done_with(path, seen[path])
            if path in failed and now.get(path) == seen[path]:
                self._failed.add(failed[path], seen[path])
            elif path not in failed:
                self._failed.drop(path)
        if self._failed.save():
            self._reporter.failed(self._failed.sources())


# ------------------------------------------------------------------------------------------------------------- batches


@dataclass(frozen=True)
class _Batch:
    """Pictures to be planned together. Pictures with the same folder and stem form a group: their results may compete
    for a name, and all of them must be known to name each. `new` are those to be processed."""

    groups: tuple[tuple[Path, ...], ...]
    new: frozenset[Path]

    @property
    def all(self) -> list[Path]:
        return [path for group in self.groups for path in group]


def _first_batch(ready: Sequence[Path], seen: dict[Path, FileStamp]) -> _Batch:
    by_stem: dict[Path, list[Path]] = {}
    for path in seen:
        by_stem.setdefault(path.with_suffix(""), []).append(path)
    stems = list(dict.fromkeys(path.with_suffix("") for path in ready))[:_BATCH]
    return _Batch(tuple(tuple(by_stem[stem]) for stem in stems), frozenset(ready))


# ---------------------------------------------------------------------------------------------------------- what failed


@dataclass(frozen=True)
class _Attempt:
    stamp: FileStamp
    reason: str
    lasting: bool  # the file itself is at fault; another try would give the same result
    tries: int
    at: float  # the `time.time` of the next try, unless lasting


class _Failed:
    """The list of failures, stored beside the results. An entry applies to a file's state, and to these settings."""

    def __init__(self, path: Path, root: Path, key: str) -> None:
        self._path, self._root, self._key = path, root, key
        self._attempts: dict[Path, _Attempt] = {}
        with suppress(OSError):
            for row in stored.read_bytes(path).splitlines():
                with suppress(ValueError, KeyError, TypeError):
                    self._load(stored.json_of(row))
        self._saved = self._text()

    def _load(self, entry: dict[str, object]) -> None:
        if entry["settings"] != self._key:
            return
        size, mtime_ns, inode = (stored.whole(entry[name]) for name in FileStamp._fields)
        path = self._root / stored.text(entry["source"])
        lasting = entry["lasting"] is True
        self._attempts[path] = _Attempt(FileStamp(size, mtime_ns, inode), stored.text(entry["reason"]), lasting, 0, 0.0)

    def unchanged(self) -> dict[Path, FileStamp]:
        """Those that would fail again."""
        return {path: one.stamp for path, one in self._attempts.items() if one.lasting}

    def sources(self) -> list[Path]:
        return sorted(self._attempts)

    def add(self, failure: Failure, stamp: FileStamp) -> None:
        before = self._attempts.get(failure.source)
        tries = 1 + (before.tries if before is not None and before.stamp == stamp else 0)
        lasting = issubclass(failure.kind, (UnreadablePictureError, DefectError))
        pause_s = min(_MAX_AGAIN_S, _AGAIN_S * 2 ** (tries - 1))
        self._attempts[failure.source] = _Attempt(stamp, failure.reason, lasting, tries, time.time() + pause_s)

    def drop(self, path: Path) -> None:
        self._attempts.pop(path, None)

    def keep(self, seen: dict[Path, FileStamp]) -> None:
        """Forget files that no longer exist, as long as the folder does."""
        if seen:
            for path in [path for path in self._attempts if path not in seen]:
                del self._attempts[path]

    def due(self) -> list[Path]:
        """Those due for another try: a full disk may have room again, a name may be free."""
        now = time.time()
        return [path for path, one in self._attempts.items() if not one.lasting and one.at <= now]

    def seconds_left(self) -> float | None:
        times = [one.at for one in self._attempts.values() if not one.lasting]
        return max(0.0, min(times) - time.time()) if times else None

    def save(self) -> bool:
        """Write the list if it has changed, and return whether it has. Write errors are ignored."""
        text = self._text()
        if text == self._saved:
            return False
        with suppress(OSError, PictureError):
            if text or self._path.exists():
                self._path.parent.mkdir(parents=True, exist_ok=True)
                publish_text(self._path, text, own=True)
        self._saved = text
        return True

    def _text(self) -> str:
        rows = [
            {"source": str(path.relative_to(self._root)), "reason": one.reason, **one.stamp._asdict(),
             "lasting": one.lasting, "settings": self._key}
            for path, one in sorted(self._attempts.items())
        ]  # fmt: skip
        return "".join(json.dumps(row) + "\n" for row in rows)
