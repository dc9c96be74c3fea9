"""Output of a run: a progress line on stderr, or JSON events on stdout, and a summary."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from srgan_cli.cli.estimate import Estimate
from srgan_cli.errors import shown
from srgan_cli.wording import about, duration, megapixels, percent_done

if TYPE_CHECKING:
    from srgan_cli.upscaling.inputs import Failure
    from srgan_cli.upscaling.observer import Tally
    from srgan_cli.upscaling.plan import Job, Skip
    from srgan_cli.upscaling.session import Session

LINE_SECONDS = 30.0  # interval of lines in a log file
_REFRESH_SECONDS = 0.2
_EVENT_SECONDS = 0.5  # minimum interval of events inside a picture, except where a part of it becomes final

stderr = Console(stderr=True, highlight=False, soft_wrap=True)


class Watch:
    """The observer of `srgan upscale`: progress, failures as they occur, JSON events. A context manager."""

    def __init__(self, session: Session, *, quiet: bool, verbose: bool, as_json: bool) -> None:
        self._plan, self._quiet, self._verbose, self._json = session.plan, quiet, verbose, as_json
        self._may_resume = len(session.plan.jobs) > 1 or session.options.resume
        self._resumes, self._accepts_damaged = session.options.resume, session.options.accept_damaged
        self._lock = threading.Lock()
        self._positions = {_key(job): number for number, job in enumerate(self._plan.jobs, start=1)}
        self._jobs_of: dict[Path, list[Job]] = {}
        for job in self._plan.jobs:
            self._jobs_of.setdefault(job.source, []).append(job)
        # The last event inside a picture (or its start): when, and the px done.
        self._told: dict[tuple[Path, Path], tuple[float, int]] = {}
        self._notes: dict[str, list[Path]] = {}  # sentences about results, and their pictures
        self._left: set[str] = set()  # why pictures were not tried, as far as it was said
        pace = session.last_pace()
        speed = None if pace is None else pace.megapixels_per_second * 1e6
        self._estimate = Estimate(self._plan.network_pixels, speed, 0.0 if pace is None else pace.startup_seconds)
        self._doing = "loading the model"
        self._ended = threading.Event()
        self._ticker: threading.Thread | None = None
        self._progress: Progress | None = None
        if quiet or not self._plan.jobs:
            return
        if stderr.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[left]}"))
            self._progress = Progress(*columns, console=stderr, transient=True)
            self._task = self._progress.add_task(self._doing, total=None, left="")
            self._ticker = threading.Thread(target=self._tick, args=(_REFRESH_SECONDS, self._move), daemon=True)
        elif not as_json:
            self._ticker = threading.Thread(target=self._tick, args=(LINE_SECONDS, self._line), daemon=True)

    def __enter__(self) -> Watch:
        if self._json:
            total = {"pictures": len(self._plan.jobs), "network_pixels": self._plan.network_pixels}
            self._event("plan", **total, skipped=len(self._plan.skips), failed=len(self._plan.failures))
            for skip in self._plan.skips:
                self._event("skipped", source=str(skip.source), target=str(skip.target), reason=skip.reason)
        for sentence in self._plan.notes:
            self.note(sentence)
        if self._progress is not None:
            self._progress.start()
        if self._ticker is not None:
            self._ticker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self._ended.set()
        if self._ticker is not None:
            self._ticker.join()
        if self._progress is not None:
            self._progress.stop()

    # ---------------------------------------------------------------------------------------------- timed progress

    def _tick(self, seconds: float, show: Callable[[], None]) -> None:
        while not self._ended.wait(seconds):
            show()

    def _move(self) -> None:
        """The bar on a terminal, which also advances between reports if the speed is known."""
        assert self._progress is not None
        with self._lock:
            estimate, seconds = self._estimate, self._estimate.seconds_left()
            known = not estimate.is_loading and seconds is not None
            left = "" if seconds is None else f"{about(seconds)} left"
            self._progress.update(
                self._task,
                description=escape(self._doing),
                completed=estimate.px(),
                total=max(1, estimate.total_px) if known else None,  # None: an indeterminate bar
                left=f"{percent_done(estimate.fraction()):>4}  {left}" if known else left,
            )

    def _line(self) -> None:
        """The same as a line in a log file."""
        with self._lock:
            estimate, seconds = self._estimate, self._estimate.seconds_left()
            left = "" if seconds is None else f", {about(seconds)} left"
            done = "" if estimate.is_loading else f", {percent_done(estimate.fraction())}"
            line = f"{self._doing}{done}{left}"
        self._say(line)

    # ---------------------------------------------------------------------------------- what the run tells (any thread)

    def started(self, job: Job) -> None:
        count = f"{self._positions[_key(job)]}/{len(self._plan.jobs)} " if len(self._plan.jobs) > 1 else ""
        with self._lock:
            self._told[_key(job)] = time.monotonic(), 0
            self._doing = f"{count}{shown(job.source.name)}"
            self._estimate.started(_key(job), job.network_pixels)
        self._event("started", source=str(job.source), target=str(job.target), model=job.model, why=job.why)

    def advanced(self, job: Job, network_pixels: int) -> None:
        with self._lock:
            self._estimate.advanced(_key(job), network_pixels)
        self._final(job)

    def resumed(self, job: Job, network_pixels: int) -> None:
        with self._lock:
            self._estimate.resumed(_key(job), network_pixels)
        self._final(job)

    def _final(self, job: Job) -> None:
        """More rows of a picture are final. More may be done than these, and told, if other workers make other rows."""
        with self._lock:
            told, told_px = self._told[_key(job)]
            done = max(told_px, self._estimate.final_px(_key(job)))
            self._told[_key(job)] = told, done
        self._event("progress", source=str(job.source), done=done, total=job.network_pixels)

    def computed(self, job: Job, network_pixels: int) -> None:
        with self._lock:
            self._estimate.computed(_key(job), network_pixels)
            done = self._estimate.final_px(_key(job)) + network_pixels
        now, (told, told_px) = time.monotonic(), self._told[_key(job)]
        # Less than before, if a tile has to be computed again, is no news.
        if self._json and now - told >= _EVENT_SECONDS and done > told_px:
            self._told[_key(job)] = now, done
            self._event("progress", source=str(job.source), done=done, total=job.network_pixels)

    def done(self, job: Job, seconds: float, notes: tuple[str, ...]) -> None:
        self._event(
            "done",
            source=str(job.source),
            target=str(job.target),
            width=job.output.width,
            height=job.output.height,
            **page_fields(job),
            model=job.model,
            why=job.why,
            seconds=round(seconds, 3),
            notes=list(dict.fromkeys(notes)),
        )
        if self._verbose:
            made = (
                f"{job.output.width}x{job.output.height}{page_count(job)}  {job.model} ({job.why})  {duration(seconds)}"
            )
            self._say(f"{job.source} -> {job.target}  {made}")
        for sentence in dict.fromkeys(notes):
            self._notes.setdefault(sentence, []).append(job.source)
            if self._verbose:
                self._say(f"{job.source}: {sentence}")

    def failed(self, failure: Failure) -> None:
        self._event("failed", source=str(failure.source), reason=failure.reason)
        if not failure.left or failure.left not in self._left:
            self._left.add(failure.left)
            self._say(failure.sentence, style="red", even_quiet=True)
        self._leave_out(failure.source, failure.target)

    def _leave_out(self, source: Path, target: Path | None) -> None:
        """A picture that is not made is subtracted from the total, so that the bar still ends at 100 %."""
        jobs = [job for job in self._jobs_of.get(source, ()) if target in (None, job.target)]
        with self._lock:
            for job in jobs:
                self._estimate.failed(_key(job), job.network_pixels - self._estimate.final_px(_key(job)))

    def skipped(self, skip: Skip) -> None:
        self._event("skipped", source=str(skip.source), target=str(skip.target), reason=skip.reason)
        if self._verbose:
            self._say(f"{skip.source}: {skip.reason}")
        self._leave_out(skip.source, skip.target)

    def note(self, sentence: str) -> None:
        self._event("note", text=sentence)
        self._say(f"note: {sentence}")

    def detail(self, sentence: str) -> None:
        self._event("detail", text=sentence)
        if self._verbose:
            self._say(sentence)

    # ------------------------------------------------------------------------------------------------------------------

    def finish(self, tally: Tally) -> None:
        """Print the summary to stderr, and the last event."""
        self._event(
            "summary",
            done=len(tally.done),
            skipped=len(tally.skips),
            failed=len(tally.failures),
            damaged=len(tally.damaged),
            interrupted=tally.interrupted,
            seconds=round(tally.seconds, 3),
            network_seconds=round(tally.network_seconds, 3),
            output_megapixels=round(tally.output_pixels / 1e6, 3),
            exit_code=tally.exit_code,
        )
        if self._quiet:
            return
        for sentence, sources in self._notes.items() if not self._verbose else ():
            others = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
            self._say(f"{sources[0]}{others}: {sentence}")
        if len(tally.failures) > 1 and tally.done:
            self._say("what failed:", style="bold")
            for failure in (one for one in tally.failures if not one.left):
                self._say(f"  {failure.sentence}")
        if tally.error is not None and not tally.done and not tally.failures:
            return
        if not self._accepts_damaged and any("is damaged" in failure.reason for failure in tally.failures):
            self._say("note: --accept-damaged uses what can be decoded of a damaged picture")
        self._say(self._sum(tally))
        if tally.interrupted and self._may_resume:
            self._say(f"the same command {'' if self._resumes else 'with --resume '}resumes from here")

    def _sum(self, tally: Tally) -> str:
        if len(tally.done) == 1 and not (
            tally.skips or tally.failures or tally.interrupted or tally.error or tally.damaged
        ):
            (job,) = tally.done
            name = "done" if job.target == Path("-") else str(job.target)
            return f"{name}: {job.output.width}×{job.output.height}{page_count(job)}, {duration(tally.seconds)}"
        parts = [f"{len(tally.done)} done" + (f" ({len(tally.damaged)} damaged)" if tally.damaged else "")]
        parts += [f"{len(tally.skips)} skipped"] if tally.skips else []
        parts += [f"{len(tally.failures)} failed"] if tally.failures else []
        parts += ["interrupted"] if tally.interrupted else []
        speed = ""
        if tally.network_seconds > 0 and tally.done:
            speed = f" ({megapixels(tally.output_pixels)} at {megapixels(tally.output_pixels / tally.seconds)}/s)"
        return f"{', '.join(parts)} in {duration(tally.seconds)}{speed}{_models(tally.done)}"

    def _say(self, text: str, *, style: str | None = None, even_quiet: bool = False) -> None:
        if not self._quiet or even_quiet:
            with self._lock:
                stderr.print(escape(shown(text)), style=style)

    def _event(self, kind: str, **values: object) -> None:
        if self._json:
            with self._lock:
                sys.stdout.write(json.dumps({"event": kind, **values}) + "\n")
                sys.stdout.flush()


def _key(job: Job) -> tuple[Path, Path]:
    """Source and target: pages may share a source."""
    return job.source, job.target


def page_fields(job: Job) -> dict[str, int]:
    """For events: the number of pages of a document, or the page's number."""
    return {"pages": len(job.pages)} if job.pages else {} if job.page is None else {"page": job.page}


def page_count(job: Job) -> str:
    """The same for people: `, 3 pages`; empty if there is only one."""
    moves = job.container is None and job.output.format in ("gif", "png", "webp")
    word = "frames" if moves else "pages"
    return f", {len(job.pages)} {word}" if len(job.pages) > 1 else ""


def _models(jobs: Sequence[Job]) -> str:
    """The number of pictures made by each model, if there was more than one."""
    counts = Counter(job.model or "no model" for job in jobs)
    return "" if len(counts) < 2 else "; " + ", ".join(f"{count} with {name}" for name, count in counts.items())
