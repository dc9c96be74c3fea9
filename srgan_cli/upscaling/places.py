"""Where results are written, with the scratch file and journal of a large one in progress."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from srgan_cli.errors import UnwritablePictureError, shown
from srgan_cli.files import discard, lock, part_name
from srgan_cli.handles import Folder, open_folder
from srgan_cli.imaging.canvas import Canvas, open_canvas
from srgan_cli.stores import scratch
from srgan_cli.stores.paths import StorePath, relative_to
from srgan_cli.stores.scratch import ScratchFolder
from srgan_cli.upscaling.journal import Journal
from srgan_cli.upscaling.plan import CANVAS_BYTES, Job

SCRATCH, JOURNAL = ".srgan-scratch", ".srgan-journal"  # extension of files beside a large result in progress
_MAX_FOLDERS = 64  # folders kept open; only results beside their inputs can need that many


def beside(target: Path, suffix: str) -> Path:
    """An auxiliary file of a result, under a name that a later run finds again."""
    return target.with_name(f".{part_name(target)}{suffix}")


def canvas_of(job: Job, folder: Path, *, named: bool, reuse: bool = False) -> Canvas:
    """The canvas for the network's result: in memory, or for a large one in a scratch file in `folder`, under a
    reproducible name if a later run should find it again (`named`). Raises as `open_canvas` does."""
    return open_canvas(
        job.header.height * job.network_scale,
        job.header.width * job.network_scale,
        job.header.channels,
        job.canvas_depth,
        folder=folder,
        memory_bytes=CANVAS_BYTES,
        name=beside(job.target, SCRATCH).name if named else None,
        reuse=reuse,
    )


def journal_of(job: Job, settings_key: str, folder: Path) -> Journal:
    """The journal of a result in `folder`."""
    header = job.header
    shape = f"{header.width}x{header.height}x{header.channels}x{job.canvas_depth}"
    key = f"{settings_key}-{job.source_identity}-{shape}"
    return Journal(folder / beside(job.target, JOURNAL).name, key)


def clear_behind(done: Iterable[Path]) -> None:
    """Remove scratch files and journals of finished results, left by a run killed in between. Files in use by another
    process are kept."""
    folders: dict[Path, set[str]] = {}
    for target in done:
        folder = target.parent
        if folder not in folders:
            with suppress(OSError):
                folders[folder] = {p.name for p in folder.iterdir() if SCRATCH in p.name or JOURNAL in p.name}
        scratch, journal = beside(target, SCRATCH), beside(target, JOURNAL)
        own = {scratch.name, f"{scratch.name}.lock", journal.name}
        if own & folders.get(folder, set()):
            with suppress(OSError):
                _clear(scratch, journal)


def _clear(scratch: Path, journal: Path) -> None:
    held = lock(scratch.with_name(f"{scratch.name}.lock"))
    if held is None:
        return
    with held:
        journal.unlink(missing_ok=True)  # remove before the file that it refers to
        discard(scratch)


def rows_kept(job: Job, journal: Journal, folder: Path) -> int:
    """The number of input rows that an interrupted run has finished, if its scratch file is still complete."""
    rows = journal.rows()
    scratch = folder / beside(job.target, SCRATCH).name
    return rows if 0 < rows <= job.header.height and _size_of(scratch) == job.canvas_bytes else 0


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


class Places:
    """The folders of a run's results, each opened once."""

    def __init__(self) -> None:
        self._folders: dict[Path, Folder] = {}
        self._staged: dict[Path, ScratchFolder] = {}  # for stores: folders on this machine where results grow

    def folder(self, job: Job) -> Folder:
        """The folder for a result, created if missing: below the run's output folder, which is opened once, and without
        following links."""
        base = job.ledger or job.target.parent
        relative = relative_to(job.target.parent, base)
        try:
            return self._below(base, relative)
        except NotADirectoryError as err:
            raise UnwritablePictureError(f"{shown(job.target)} cannot be written: {err.strerror}") from err

    def open(self, base: Path) -> Path:
        """A handle of a folder for results, created if missing; its path if too many are open. For a folder in a store,
        a local one, from which results are uploaded."""
        if isinstance(base, StorePath):
            return self._staging(base)
        if base not in self._folders:
            if len(self._folders) >= _MAX_FOLDERS:
                base.mkdir(parents=True, exist_ok=True)
                return base
            self._folders[base] = open_folder(base)
        return self._folders[base].handle

    def _staging(self, base: StorePath) -> Path:
        if base not in self._staged:
            self._staged[base] = scratch.for_results(str(base))
        return self._staged[base].path

    def close(self) -> list[str]:
        """Release all folders. Returns notes on those that have been moved meanwhile."""
        moved = [shown(folder.path) for folder in self._folders.values() if folder.has_moved]
        for folder in self._folders.values():
            folder.close()
        for staged in self._staged.values():
            staged.close(keep=True)
        where = "was moved or replaced during the run; the results are in the folder that it was at the start"
        return [f"{name} {where}" for name in moved]

    def _below(self, base: Path, relative: Path) -> Folder:
        base = self._staging(base) if isinstance(base, StorePath) else base
        self.open(base)
        if base not in self._folders:
            with open_folder(base) as folder:
                return folder.below(relative)
        return self._folders[base].below(relative)
