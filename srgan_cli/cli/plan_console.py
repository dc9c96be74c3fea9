"""Output of `--dry-run`: what a run would do, as a table, as lines, or as JSON events."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from srgan_cli.cli.console import page_count, page_fields
from srgan_cli.errors import shown
from srgan_cli.wording import about, counted, megapixels, size

if TYPE_CHECKING:
    from srgan_cli.upscaling.plan import Job
    from srgan_cli.upscaling.session import Session


def show_plan(session: Session, *, as_json: bool) -> None:
    """`--dry-run`: print to stdout what a run would do."""
    plan = session.plan
    jobs = session.assigned()
    if as_json:
        for row in _plan_events(session, jobs):
            sys.stdout.write(json.dumps(row) + "\n")
        return
    out = Console(highlight=False, soft_wrap=True)
    rows = [
        (
            shown(job.source),
            f"{job.header.width}x{job.header.height}{page_count(job)}",
            shown(job.target),
            f"{job.output.width}x{job.output.height}",
            _passes(job),
            f"{job.model}: {job.why}" if job.scales else "",
        )
        for job in jobs
    ]
    if rows and out.is_terminal:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("input", "size", "result", "size", "networks", "model"):
            table.add_column(title, overflow="fold")
        for cells in rows:
            table.add_row(*map(escape, cells))
        out.print(table, soft_wrap=False)
    else:
        for cells in rows:  # for other programs: one line each, of any width
            sys.stdout.write("\t".join(cells) + "\n")
    for skip in plan.skips:
        out.print(escape(f"skip {shown(skip.source)}: {shown(skip.target)}: {skip.reason}"))
    for failure in plan.failures:
        out.print(escape(f"fail {shown(failure.sentence)}"), style="red")
    for sentence in (*plan.notes, *_notes_of(jobs)):
        out.print(escape(f"note: {sentence}"))
    out.print(escape(_plan_totals(session)))


def _notes_of(jobs: Sequence[Job]) -> list[str]:
    """Notes on pictures; the same note on several pictures is combined into one line."""
    whose: dict[str, list[str]] = {}
    for job in jobs:
        for note in job.notes:
            whose.setdefault(note, []).append(shown(job.source))
    return [f"{names[0]}{f' and {len(names) - 1} more' * (len(names) > 1)}: {note}" for note, names in whose.items()]


def _passes(job: Job) -> str:
    if not job.scales:
        return "copied unchanged" if job.is_copy else "none, it is large enough"
    chain = " then ".join(f"x{s}" for s in job.scales)
    made = job.header.width * job.network_scale, job.header.height * job.network_scale
    return chain if made == (job.output.width, job.output.height) else f"{chain}, resampled"


def _plan_events(session: Session, jobs: Sequence[Job]) -> list[dict[str, object]]:
    plan = session.plan
    rows: list[dict[str, object]] = [
        {
            "event": "planned",
            "source": str(job.source),
            "target": str(job.target),
            "width": job.output.width,
            "height": job.output.height,
            **page_fields(job),
            "networks": list(job.scales),
            "model": job.model,
            "why": job.why,
            "network_pixels": job.network_pixels,
            "memory_bytes": job.memory_bytes,
            "memory_bytes_in_all": session.memory_bytes(job),
            "scratch_bytes": job.scratch_bytes,
            "tiles": session.tiles(job),
            "notes": list(job.notes),
        }
        for job in jobs
    ]
    rows += [
        {"event": "skipped", "source": str(s.source), "target": str(s.target), "reason": s.reason} for s in plan.skips
    ]
    rows += [{"event": "failed", "source": str(f.source), "reason": f.reason} for f in plan.failures]
    pace = session.last_pace()
    rows.append(
        {
            "event": "total",
            "pictures": len(plan.jobs),
            "network_pixels": plan.network_pixels,
            "output_bytes_raw": sum(job.raw_bytes for job in plan.jobs),
            "estimated_seconds": session.estimated_seconds(),
            "measured_on": None if pace is None else {"device": pace.device, "precision": pace.precision},
        }
    )
    return rows


def _memory(session: Session) -> str:
    jobs = session.plan.jobs
    known = [total for job in jobs if (total := session.memory_bytes(job)) is not None]
    if known:
        return f"about {size(max(known))} at most"
    pictures = size(max(job.memory_bytes for job in jobs))
    known_after = "known after a first run of a few megapixels here"
    return f"about {pictures} for the largest picture, besides program and network ({known_after})"


def _plan_totals(session: Session) -> str:
    plan, pace, seconds = session.plan, session.last_pace(), session.estimated_seconds()
    jobs = plan.jobs
    lines = [
        f"{len(jobs)} to do, {len(plan.skips)} to skip, {len(plan.failures)} cannot be done: "
        f"{megapixels(sum(j.output.pixels for j in jobs))} of results with {session.model}"
    ]
    if jobs:
        scratch = max(job.scratch_bytes for job in jobs)
        raw = sum(job.raw_bytes for job in jobs)
        lines.append(
            f"memory: {_memory(session)}"
            + (f"; scratch file: {size(scratch)}" if scratch else "")
            + f"; results: at most about {size(raw)} on disk"
        )
        if pace is None or seconds is None:
            lines.append(
                "time and tiles: not known before a first run of a few megapixels with this model on this machine"
            )
        else:
            tiles = sum(session.tiles(job) or 0 for job in jobs)
            lines.append(
                f"time: {about(seconds)}, at the {megapixels(pace.measured_pixels_per_second)}/s of the last run here"
                + (" divided by eight, for the copies of --ensemble" if pace.of_one_copy else "")
                + (", when the machine was busy" if pace.was_busy else "")
                + f" ({pace.device}, {pace.precision}, {counted(tiles, 'tile')} of up to {pace.tile_px} px)"
            )
    return "\n".join(lines)
