"""What earlier runs have already done, by the folder's record or by a result's own metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from srgan_cli.config import UpscaleOptions
from srgan_cli.documents.opening import open_document
from srgan_cli.errors import PictureError, SettingsError
from srgan_cli.imaging.image import Header
from srgan_cli.imaging.metadata import provenance
from srgan_cli.imaging.reading import read_header
from srgan_cli.stores.fetching import on_this_machine
from srgan_cli.upscaling.inputs import STREAM
from srgan_cli.upscaling.ledger import Ledger, ResultState
from srgan_cli.upscaling.plan import Job, Skip
from srgan_cli.upscaling.present import Present

_ANY_SIZE = 1 << 62


def without_done(jobs: Sequence[Job], options: UpscaleOptions, settings_key: str) -> tuple[list[Job], list[Skip]]:
    """The jobs still to do, and those skipped since their result exists and may stay.

    Raises `SettingsError` for an existing result without an option that says what to do, or that no run made.
    """
    todo: list[Job] = []
    skips: list[Skip] = []
    ledgers: dict[Path, Ledger] = {}
    present = Present(job.target for job in jobs)
    for job in jobs:
        if job.target == STREAM or options.overwrite or job.target not in present:
            todo.append(replace(job, is_new=not options.overwrite))
        elif options.skip_existing:
            skips.append(Skip(job.source, job.target, "it exists already"))
        elif options.resume:
            assert job.ledger is not None
            if job.ledger not in ledgers:
                ledgers[job.ledger] = Ledger.load(job.ledger)
            ledger = ledgers[job.ledger]
            found = present.identity(job.target)
            state = _state(job, settings_key, ledger, found)
            if state == "done":
                skips.append(Skip(job.source, job.target, "it is done, with the same settings and weights"))
            elif state == "stale":
                todo.append(replace(job, is_new=False))
            else:
                raise SettingsError(
                    f"{job.target} exists, but no earlier run made it (it is not in {ledger.path.name}); move it "
                    "away, or give --overwrite or --skip-existing"
                )
        else:
            count = sum(j.target in present for j in jobs)
            others = f", and {count - 1} more" if count > 1 else ""
            raise SettingsError(
                f"{job.target} exists already{others}; give --overwrite, --skip-existing or --resume, or another -o"
            )
    return todo, skips


def _state(job: Job, settings_key: str, ledger: Ledger, found: str) -> ResultState:
    state = ledger.state(job.target, job.source_identity, settings_key, found)
    if state == "done" or ledger.is_to_be_made_again(job.target, found):
        return state
    # The file is asked where the record does not know it, and where times may have changed in a copy.
    return recorded_state(job, settings_key, state) if state != "stale" or ledger.lists(job.target, found) else state


def recorded_state(job: Job, settings_key: str, listed: ResultState) -> ResultState:
    """The state from a result's own metadata, if the folder's record is lost or does not know the file, or times have
    changed in a copy: done, if it was made from these bytes with these settings; stale, if from a picture of this name;
    otherwise `listed`. If that is `changed`: stale for a result from a picture of this name and for what is no picture
    any more (half a copy, for example); unknown for another picture."""
    try:
        made = _header(job)
        record = provenance.read(made.metadata)
        if record is None or record.source_name != provenance.name_digest(job.source):
            return "unknown" if listed == "changed" else listed
        whole = (made.width, made.height, made.format) == (job.output.width, job.output.height, job.output.format)
        if record.settings == settings_key and whole and listed != "changed":
            return "done" if record.source_digest == _digest(job) else "stale"
    except (PictureError, OSError):
        return "stale" if listed == "changed" else listed
    return "stale"


def _header(job: Job) -> Header:
    """The header of a result; for an archive or a PDF that of its first page, which contains the provenance record."""
    if job.container is None:
        return read_header(job.target, max_pixels=_ANY_SIZE)
    with open_document(job.target, max_pixels=_ANY_SIZE) as document:
        return document.header(0)


def _digest(job: Job) -> str:
    if job.data is not None:
        return provenance.bytes_digest(job.data)
    with on_this_machine(job.source) as file:
        return provenance.bytes_digest(file)
