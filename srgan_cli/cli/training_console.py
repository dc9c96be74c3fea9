"""Output of a training run: a progress line on stderr (or occasional lines), JSON events on stdout, and the scores."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from srgan_cli.cli.console import stderr
from srgan_cli.errors import shown
from srgan_cli.wording import clock, counted, duration, percent_done

if TYPE_CHECKING:
    from srgan_cli.dataset.crops import Refusal, Scan
    from srgan_cli.training.observer import Outcome, Progress

_PLAIN_EVERY_S = 30.0
_MAX_REFUSALS = 12  # up to this many are named individually; more are grouped by reason
# Display names of scores; the other numbers are in the log and the report.
_DECIMALS = {"ssim_y": 4, "perceptual": 3, "teacher_perceptual": 3}  # others have 2
_TITLES = {
    "psnr_y_db": "PSNR (Y), dB",
    "ssim_y": "SSIM (Y)",
    "psnr_rgb_db": "PSNR (RGB), dB",
    "consistency_db": "consistency, dB",
    "perceptual": "perceptual",
    "teacher_psnr_y_db": "to the teacher, dB",
    "teacher_perceptual": "to the teacher, VGG",
    "spread": "spread",
}


class TrainingWatch:
    """The observer of `srgan train`. A context manager: the progress line is shown inside."""

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self._quiet, self._json = quiet, as_json
        self._live: Live | None = None
        self._begun = self._said = time.monotonic()
        self._latest: Progress | None = None
        self._latest_at = self._begun
        self._validation: dict[str, float] = {}
        self._doing = "loading the networks"
        if not quiet and stderr.is_terminal:
            self._live = Live(
                get_renderable=self._line, console=stderr, refresh_per_second=2, transient=True, redirect_stdout=False
            )

    def __enter__(self) -> TrainingWatch:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    # ------------------------------------------------------------------------------------------- events of the trainer

    def scanning(self, done: int, total: int) -> None:
        self._doing_now("scanning", done, total, f"reading the pictures: {done} of {total}")

    def scanned(self, scan: Scan) -> None:
        self._event(
            "scanned",
            train=len(scan.train),
            validation=len(scan.val),
            without_an_original=len(scan.unlabelled),
            split=scan.split,
            refused=[{"path": str(one.path), "reason": one.reason} for one in scan.refused],
        )
        without = f" and {len(scan.unlabelled)} without an original" if scan.unlabelled else ""
        learned = f"{counted(len(scan.train), 'picture')}{without} to learn from"
        self._say(f"{learned}, {len(scan.val)} to validate with: {scan.split}")
        for line in refusal_lines(scan.refused):
            self._say(line)

    def caching(self, done: int, total: int) -> None:
        # none is reported by a process that waits for another one
        waiting = "waiting for another process, which decodes the same pictures"
        self._doing_now("caching", done, total, f"decoding pictures: {done} of {total}" if done else waiting)

    def teaching(self, done: int, total: int) -> None:
        waiting = "waiting for another process, whose teacher enlarges the same pieces"
        sentence = f"the teacher enlarges: {done} of about {counted(total, 'piece')}" if done else waiting
        self._doing_now("teaching", done, total, sentence)

    def preparing(self, what: str) -> None:
        self._doing = what

    def _doing_now(self, event: str, done: int, total: int, sentence: str) -> None:
        self._event(event, done=done, total=total)
        self._doing = sentence
        self._plainly(sentence)

    def started(self, facts: Mapping[str, object]) -> None:
        self._event("started", **facts)
        self._doing = "scoring the validation pictures"
        self._say(summary(facts))

    def progress(self, p: Progress) -> None:
        self._event("progress", **dataclasses.asdict(p))
        self._latest, self._latest_at = p, time.monotonic()
        self._validation = {**self._validation, **p.validation}
        self._plainly("  ".join(text for text, _ in pieces(p, self._validation, p.seconds_left, bar=0)))

    def note(self, sentence: str) -> None:
        self._event("note", text=sentence)
        self._say(f"note: {sentence}")

    def validated(self, values: Mapping[str, float]) -> None:
        self._event("validated", **values)
        self._validation = dict(values)

    # ------------------------------------------------------------------------------------------------------------------

    def finish(self, outcome: Outcome) -> None:
        """Print the scores and the model's path to stderr, and the last event."""
        self._event(
            "summary",
            folder=str(outcome.folder),
            model=str(outcome.model),
            scores=outcome.scores,
            steps=outcome.steps,
            seconds=round(outcome.seconds, 3),
            interrupted=outcome.interrupted,
            exit_code=outcome.exit_code,
        )
        done = f"after {counted(outcome.steps, 'step')} and {duration(outcome.seconds)}"
        if outcome.interrupted:
            self._say(f"stopped and saved {done}; the same command resumes from there")
            return
        self._say(f"done {done}")
        if outcome.scores and not self._quiet:
            stderr.print(table(outcome.scores, stderr.width), soft_wrap=False)
        report = outcome.folder / "report.html"
        if report.exists():
            self._say(f"report: {report}")
        self._say(f"to use it: srgan upscale PICTURE --model {shlex.quote(str(outcome.folder))}")

    def _line(self) -> Text:
        """The progress line, shortened to fit."""
        since = time.monotonic() - self._latest_at
        if self._latest is None:
            return Text(shorten(f"{self._doing} … {_whole(time.monotonic() - self._begun)}", stderr.width))
        left = self._latest.seconds_left
        left = None if left is None else max(0.0, left - since)
        wide = stderr.width >= 100
        text = fitting(pieces(self._latest, self._validation, left, bar=16 if wide else 8), stderr.width)
        return Text(text, no_wrap=True, overflow="crop")

    def _plainly(self, text: str) -> None:
        """Without a progress line, print an occasional line."""
        now = time.monotonic()
        if self._live is None and now - self._said >= _PLAIN_EVERY_S:
            self._said = now
            self._say(text)

    def _say(self, text: str) -> None:
        if not self._quiet:
            # On a terminal, lines break between words; in a file they are not broken.
            stderr.print(escape(shown(text)), soft_wrap=not stderr.is_terminal)

    def _event(self, kind: str, **values: object) -> None:
        if self._json:
            try:
                sys.stdout.write(json.dumps(_plain({"event": kind, **values})) + "\n")
                sys.stdout.flush()
            except BrokenPipeError:  # the reader of the output has ended; training continues
                self._json = False
                with contextlib.suppress(OSError, ValueError):
                    # or Python reports an error when it exits
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# -------------------------------------------------------------------------------------------------------------- wording


def pieces(
    p: Progress, validation: Mapping[str, float], seconds_left: float | None, *, bar: int
) -> list[tuple[str, int]]:
    """The parts of the progress line, from left to right, each with its priority: 0 is the highest."""
    found = [(f"{p.phase} {percent_done(p.fraction):>4}", 0)]
    if bar:
        full = round(bar * min(p.fraction, 1.0))
        found.append(("━" * full + "╌" * (bar - full), 9))
    found.append((f"step {p.step:,}".replace(",", " "), 3))
    found.append((f"{_figure(p.steps_per_s)} steps/s", 2))
    found.append((f"{p.pictures_per_s:.0f} pictures/s", 5))
    if p.loader_fraction >= 0.05:
        found.append((f"{p.loader_fraction:.0%} waiting for pictures", 4))
    found += [(f"{name} {value:.3g}", 3 + i) for i, (name, value) in enumerate(p.losses.items())]
    if (psnr := validation.get("psnr_y_db")) is not None:
        baseline = validation.get("bicubic_psnr_y_db")
        found.append((f"{psnr:.2f} dB", 0))
        if baseline is not None:
            found.append((f"(bicubic {baseline:.2f})", 5))
    if (ssim := validation.get("ssim_y")) is not None:
        found.append((f"SSIM {ssim:.4f}", 8))
    if seconds_left is not None and math.isfinite(seconds_left):
        found.append((f"{clock(seconds_left)} left", 1))
    return found


def fitting(parts: Iterable[tuple[str, int]], width: int, gap: str = "  ") -> str:
    """The parts with the highest priority, in order, that fit into `width` characters. Parts are never shortened."""
    kept = list(parts)
    while len(gap.join(text for text, _ in kept)) > width and len(kept) > 1:
        # Among equals, the last is dropped first.
        worst = max(range(len(kept)), key=lambda i: (kept[i][1], i))
        del kept[worst]
    return shorten(gap.join(text for text, _ in kept), width)


def shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def refusal_lines(refused: Iterable[Refusal]) -> list[str]:
    """Which pictures are left out and why: individually if there are few, else the number for each reason, with an
    example."""
    refused = list(refused)
    if not refused:
        return []
    head = f"{counted(len(refused), 'picture')} left out:"
    if len(refused) <= _MAX_REFUSALS:
        return [head, *(f"  {one.path}: {one.reason}" for one in refused)]
    kinds: dict[str, list[Refusal]] = {}
    for one in refused:
        kinds.setdefault(re.sub(r"\d+", "#", one.reason), []).append(one)
    rows = sorted(kinds.values(), key=len, reverse=True)[:_MAX_REFUSALS]
    return [head, *(f"  {len(row)}, such as {row[0].path}: {row[0].reason}" for row in rows)]


def summary(facts: Mapping[str, object]) -> str:
    """What will be done, in one line."""
    words = [f"{facts.get('device', '')} {facts.get('precision', '')}".strip()]
    if int(str(facts.get("processes") or 1)) > 1:
        words.append(f"{facts['processes']} processes")
    if facts.get("parameters"):
        millions = int(str(facts["parameters"])) / 1e6
        words.append(f"{facts.get('architecture', 'a network')} of {millions:.2f} M parameters, x{facts.get('scale')}")
    if facts.get("batch"):
        words.append(f"{counted(int(str(facts['batch'])), 'crop')} of {facts.get('crop_px')} px a step")
    if facts.get("budget_s"):
        words.append(f"for {_whole(float(str(facts['budget_s'])))}")
    elif facts.get("steps"):
        words.append(counted(int(str(facts["steps"])), "step"))
    begun = facts.get("resumed_at")
    return "; ".join(filter(None, words)) + (f"; resuming from step {begun}" if begun is not None else "")


def _whole(seconds: float) -> str:
    """`7 s`, `30 min`, `3 min 05 s`."""
    text = duration(round(seconds)).replace(".0 s", " s")
    return text.removesuffix(" 00 s") if "min" in text else text


def _figure(value: float) -> str:
    return f"{value:.1f}" if round(value, 2) >= 10 else f"{value:.2f}"


def table(scores: Mapping[str, Mapping[str, float]], width: int) -> Table:
    """The scores with a row for each method; or, if the metrics' names do not fit side by side, for each metric."""
    keys = [key for key in _TITLES if any(key in values for values in scores.values())]
    rows = [["", *(_TITLES[key] for key in keys)]]
    rows += [[name, *(_score(values, key) for key in keys)] for name, values in scores.items()]
    if _table_width(rows) > width:
        rows = [list(column) for column in zip(*rows, strict=True)]
    found = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(rows[0]):
        found.add_column(escape(title), justify="right" if number else "left")
    for row in rows[1:]:
        found.add_row(*map(escape, row))
    return found


def _score(values: Mapping[str, float], key: str) -> str:
    return f"{values[key]:.{_DECIMALS.get(key, 2)}f}" if key in values else ""


def _table_width(rows: Sequence[Sequence[str]]) -> int:
    """With two spaces between columns."""
    columns = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return sum(columns) + 2 * (len(columns) - 1)


def _plain(value: object) -> object:
    """For JSON: without NaN and infinity, which other parsers reject."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
