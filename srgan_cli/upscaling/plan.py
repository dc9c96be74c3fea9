"""What a run will do, resolved before it does anything: which pictures, how large, under which names.

Neither torch nor a decoder is needed, so `--dry-run` is instant and a mistake in the names is found before the first
minute of work is lost.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from srgan_cli.config import UpscaleOptions, WriteOptions
from srgan_cli.errors import (
    ExitCode,
    PictureError,
    SettingsError,
    UnwritablePictureError,
    shown,
)
from srgan_cli.files import is_special
from srgan_cli.handles import link_below
from srgan_cli.imaging.documents.document import Contents
from srgan_cli.imaging.formats import CONTAINERS, FORMATS, format_of_suffix
from srgan_cli.imaging.image import Depth, Header
from srgan_cli.imaging.metadata import provenance
from srgan_cli.imaging.output import Output, decide
from srgan_cli.imaging.reading import read_header
from srgan_cli.imaging.writing import check_place
from srgan_cli.sizes import Aim
from srgan_cli.upscaling import inputs, names
from srgan_cli.upscaling.inputs import STREAM, Failure, InputFile, Walk
from srgan_cli.upscaling.ledger import Ledger, ResultState, identity
from srgan_cli.upscaling.names import Naming
from srgan_cli.upscaling.paging import (
    PageJob,
    aim_of,
    default_note,
    kept_note,
    page_jobs,
    single_pages,
    split_note,
    stays_one_file,
)
from srgan_cli.upscaling.tiles import choose_scales

# Pictures up to this size are decoded ahead, whole; larger ones are read row by row while they are upscaled.
READ_AHEAD_BYTES = 96 << 20
# Results up to this size are built in memory; larger ones in a scratch file beside the target.
CANVAS_BYTES = 192 << 20
_LARGE = "it is large enough already"
_ANY_SIZE = 1 << 62


@dataclass(frozen=True)
class Job:
    """One picture to be made. `scales` are the networks' factors in order, none for a picture that is large enough
    already; the result is then resampled to the size of `output` where their product is not exact. `ledger` is the
    folder whose record it goes into; `data` holds what stdin gave. `model` is the one that will make it and `why` the
    reason; empty where that is still to be chosen."""

    source: Path
    target: Path
    header: Header
    scales: tuple[int, ...]
    output: Output
    ledger: Path | None = None
    data: bytes | None = None
    notes: tuple[str, ...] = ()  # what a person should know of it
    is_new: bool = True  # nothing is to be replaced
    is_copy: bool = False  # the input's bytes are the result
    model: str = ""
    why: str = ""
    made_by: tuple[str, str] = ("", "")  # what its record says: the model's name, its weights
    page: int | None = None  # of a file of several, where this one becomes a file of its own
    pages: tuple[PageJob, ...] = ()  # of a document that stays one file; header, scales and output are its first's
    container: str | None = None  # the file of files that the result is, a key of CONTAINERS

    @property
    def network_scale(self) -> int:
        return math.prod(self.scales)

    @property
    def raw_bytes(self) -> int:
        """The result before compression."""
        return sum(page.raw_bytes for page in self.pages) or self.output.raw_bytes(self.header.channels)

    def needed_bytes(self, options: WriteOptions) -> int:
        """A generous guess at the file's size."""
        parts = self.pages or (self,)
        return sum(part.output.needed_bytes(part.header.channels, options) for part in parts)

    @property
    def canvas_depth(self) -> Depth:
        """Bits per sample of the network's own result."""
        return self.output.depth if self.scales else self.header.depth

    @property
    def canvas_bytes(self) -> int:
        """What the network's own result takes, in memory or in a scratch file."""
        if self.pages:
            return max(page_of(self, page).canvas_bytes for page in self.pages)
        pixels = self.header.width * self.header.height * self.network_scale**2
        return 0 if self.is_copy else pixels * self.header.channels * self.canvas_depth // 8

    @property
    def scratch_bytes(self) -> int:
        """What a large picture needs on the target's disk while it is made."""
        return self.canvas_bytes if self.canvas_bytes > CANVAS_BYTES else 0

    @property
    def memory_bytes(self) -> int:
        """Largest share of memory of one picture, the network aside."""
        decoded = max(part.header.decoded_bytes for part in self.pages or (self,))
        return min(decoded, READ_AHEAD_BYTES) + self.canvas_bytes - self.scratch_bytes

    @property
    def network_pixels(self) -> int:
        """Output px of the network: what takes the time. 0 where the picture is large enough already."""
        if self.pages:
            return sum(page.network_pixels for page in self.pages)
        return 0 if not self.scales else self.header.width * self.header.height * self.network_scale**2

    @property
    def output_pixels(self) -> int:
        return sum(part.output.pixels for part in self.pages or (self,))


def page_of(job: Job, page: PageJob) -> Job:
    """One page of a document as a picture of its own."""
    return replace(
        job, header=page.header, scales=page.scales, output=page.output, page=page.number, pages=(), is_copy=False
    )


@dataclass(frozen=True)
class Skip:
    """One input that needs nothing."""

    source: Path
    target: Path
    reason: str


@dataclass(frozen=True)
class Plan:
    """Everything a run will do, in order."""

    jobs: tuple[Job, ...]
    skips: tuple[Skip, ...] = ()
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()  # what a person should know before the work begins
    cut_short: bool = False  # there were more pictures, but --fail-fast found a failure first

    @property
    def network_pixels(self) -> int:
        return sum(job.network_pixels for job in self.jobs)

    @property
    def exit_code(self) -> ExitCode:
        """What a run could at best end with."""
        return exit_code(bool(self.jobs or self.skips or self.cut_short), self.failures)


def exit_code(some_done: bool, failures: Sequence[Failure]) -> ExitCode:
    """All done, some failed, or nothing was readable."""
    if failures and not some_done and all(failure.unreadable for failure in failures):
        return ExitCode.NOTHING_READABLE
    return ExitCode.SOME_FAILED if failures else ExitCode.DONE


@dataclass(frozen=True)
class _Run:
    """What all jobs of one plan share."""

    options: UpscaleOptions
    available_scales: tuple[int, ...]
    into: Path | None
    stdin: bytes | None
    keeps_record: bool


@dataclass(frozen=True)
class _Sized:
    """A picture whose result has a size and a format, but no name yet."""

    one: InputFile
    header: Header
    aim: Aim
    output: Output
    naming: Naming
    page: int | None = None
    pages: tuple[PageJob, ...] = ()


def plan(
    options: UpscaleOptions,
    available_scales: tuple[int, ...],
    settings_key: str,
    *,
    stdin: bytes | None = None,
    found: Sequence[InputFile] | None = None,
) -> Plan:
    """Resolve a run. `available_scales` are those of the model's networks; `settings_key` identifies everything that
    decides a result but its input (`--resume` compares it). `stdin` is what `-` stands for among the inputs, which are
    those of `options` unless a caller has `found` them already.

    Raises `SettingsError` for collisions, results that exist already, or an input that would be overwritten;
    `NothingToDoError` when the inputs hold no picture at all.
    """
    walk = inputs.find_inputs(options) if found is None else Walk(tuple(found), (), ())
    failures = list(walk.failures)
    into = names.output_folder(options, walk.found)
    found = names.without_earlier_results(walk.found, into)
    # Before the headers are read where no name depends on pictures of other parts; see `_in_shard`.
    early = into is not None and options.name_pattern is None
    found = [one for one in found if not early or _in_shard(one, options)]
    sized: list[_Sized] = []
    paged: list[str] = []  # notes on documents that become many files
    answers = list(inputs.headers(found, options, stdin))
    results = names.recorded_results([(one, _first_header(answer)) for one, answer in answers])
    answers = [(one, answer) for one, answer in answers if one.source not in results]
    others = set() if early else {one.source for one, _ in answers if not _in_shard(one, options)}
    alone = len(answers) == 1
    for index, (one, answer) in enumerate(answers, start=1):
        if isinstance(answer, PictureError):
            failures.append(Failure(one.source, str(answer), type(answer)))
            continue
        with _one_failing(one, failures, alone=alone):
            if isinstance(answer, Header):
                sized.append(_sized(one, answer, options, into, index))
            else:
                made, told = _document(one, answer, options, into, index, available_scales)
                sized += made
                paged += told
    skips = [Skip(s.one.source, s.naming.target(options), _LARGE) for s in sized if _is_left_out(s, options)]
    sized = [s for s in sized if not _is_left_out(s, options)]
    targets, notes = _targets(sized, options, into)
    run = _Run(options, available_scales, into, stdin, keeps_record=options.resume or not alone or into is not None)
    jobs: list[Job] = []
    for each, target in zip(sized, targets, strict=True):
        with _one_failing(each.one, failures, alone=alone):
            jobs.append(_job(each, target, run))
    jobs = _without_own_results(jobs, {one.source for one in found if one.root is not None})
    names.refuse_losses([(job.source, job.target) for job in jobs])
    jobs, done = _skip_done([job for job in jobs if job.source not in others], options, settings_key)
    skips = [skip for skip in skips if skip.source not in others] + done
    failures = [failure for failure in failures if failure.source not in others]
    notes = [*walk.notes, *paged, *notes, *_disk_notes(jobs, options)]
    if options.fail_fast and failures:
        return Plan((), tuple(skips), tuple(failures), tuple(notes), cut_short=bool(jobs))
    return Plan(tuple(jobs), tuple(skips), tuple(failures), tuple(notes))


def _in_shard(one: InputFile, options: UpscaleOptions) -> bool:
    """Whether a picture is in the part of this run. Those whose results could have one name are in one part."""
    return options.shard is None or options.shard.has(one.relative.with_suffix("").as_posix())


@contextmanager
def _one_failing(one: InputFile, failures: list[Failure], *, alone: bool) -> Iterator[None]:
    """What is wrong with one picture is a failure of that picture; options that suit no picture are an error."""
    try:
        yield
    except (PictureError, SettingsError) as err:
        if isinstance(err, SettingsError) and alone:
            raise type(err)(f"{shown(one.source)}: {err.sentence}") from err
        failures.append(Failure(one.source, err.sentence, type(err)))


def _first_header(answer: Header | Contents | PictureError) -> Header | None:
    return answer.pages[0] if isinstance(answer, Contents) else answer if isinstance(answer, Header) else None


def _named_file(options: UpscaleOptions, into: Path | None) -> Path | None:
    """The one file that `-o` names."""
    return options.output if into is None and options.output not in (None, STREAM) else None


def _sized(one: InputFile, header: Header, options: UpscaleOptions, into: Path | None, index: int) -> _Sized:
    aim = aim_of(header, options)
    to_file = _named_file(options, into)
    output = decide(to_file, header, options.write, width=aim.width, height=aim.height, dpi=options.size.resolution)
    _refuse_two_formats(to_file, output, options)
    return _Sized(one, header, aim, output, Naming(one, aim.width / header.width, output, into, index))


def _refuse_two_formats(to_file: Path | None, output: Output, options: UpscaleOptions) -> None:
    if to_file is not None and format_of_suffix(to_file.suffix) not in (None, output.format):
        raise SettingsError(f"-o {shown(to_file)} is the name of another format than --format {options.write.format}")


def _document(
    one: InputFile, contents: Contents, options: UpscaleOptions, into: Path | None, index: int, scales: tuple[int, ...]
) -> tuple[list[_Sized], list[str]]:
    """A document that stays one file; or its pages, each a picture of its own, and a note on them."""
    to_file = _named_file(options, into)
    if stays_one_file(contents, to_file, options):
        pages = page_jobs(contents, to_file, options, scales)
        first = pages[0]
        container = contents.format if contents.format in CONTAINERS else None
        if container is None:
            _refuse_two_formats(to_file, first.output, options)
        ratios = [aim_of(page.header, options) for page in pages]
        aim = max(ratios, key=lambda each: each.ratio)
        naming = Naming(one, first.output.width / first.header.width, first.output, into, index, container=container)
        told = (
            *kept_note(contents),
            *first.header.notes,
            *contents.notes,
            *default_note(contents, first.output, to_file, options),
        )
        header = replace(first.header, notes=told)
        return [_Sized(one, header, aim, first.output, naming, pages=pages)], []
    singles = []
    for number, header, digits in single_pages(contents, options):
        sized = _sized(one, header, options, into, index)
        singles.append(replace(sized, page=number, naming=replace(sized.naming, page=number, digits=digits)))
    if len(singles) == 1:
        return singles, []
    first_name = singles[0].naming.target(options).name if to_file is None else singles[0].naming.numbered(to_file.name)
    return singles, [
        f"{shown(one.source)}: {split_note(contents, FORMATS[singles[0].output.format].title, first_name)}"
    ]


def _is_left_out(sized: _Sized, options: UpscaleOptions) -> bool:
    return options.size.only_enlarge and sized.aim.ratio <= 1 and options.size.copy_large == "skip"


def _targets(sized: Sequence[_Sized], options: UpscaleOptions, into: Path | None) -> tuple[list[Path], list[str]]:
    if into is None and options.output is not None:
        return [options.output.with_name(s.naming.numbered(options.output.name)) for s in sized], []
    return names.distinct([s.naming for s in sized], options)


def _job(sized: _Sized, target: Path, run: _Run) -> Job:
    one, header, output, options = sized.one, sized.header, sized.output, run.options
    enlarged = not options.size.only_enlarge or sized.aim.ratio > 1
    keeps_record = target != STREAM and (run.keeps_record or one.root is not None)
    job = Job(
        source=one.source,
        target=target,
        header=header,
        scales=_scales(sized, run) if enlarged else (),
        output=output,
        ledger=(run.into or one.root or target.parent) if keeps_record else None,
        data=run.stdin if one.source == STREAM else None,
        notes=(*header.notes, sized.aim.note) if sized.aim.note else header.notes,
        page=sized.page,
        pages=sized.pages,
        container=sized.naming.container,
        is_copy=not (enlarged or sized.page or sized.pages)
        and options.size.copy_large == "copy"
        and _is_same_file(header, output, options),
    )
    if target != STREAM:
        if run.into is not None or options.output is None:
            _refuse_detours(target, run.into or one.root or target.parent)
        check_place(target, job.needed_bytes(options.write) + job.scratch_bytes)
    return job


def _scales(sized: _Sized, run: _Run) -> tuple[int, ...]:
    if sized.pages:
        return next((page.scales for page in sized.pages if page.scales), ())
    return choose_scales(run.available_scales, sized.aim.ratio)


def _is_same_file(header: Header, output: Output, options: UpscaleOptions) -> bool:
    """Whether the result would hold what the input does, so that its bytes may be copied."""
    return (output.format, output.depth) == (header.format, header.depth) and options.write.strip == "none"


def _refuse_detours(target: Path, base: Path) -> None:
    """A name that nobody gave leads to a plain file in a real folder, or nothing is written there."""
    link = link_below(base, target.parent)
    if link is not None:
        raise UnwritablePictureError(
            f"{shown(link)} is a link, and results are written into real folders below {shown(base)} only; "
            "name the folder that it leads to with -o"
        )
    if is_special(target) and not target.is_dir():
        raise UnwritablePictureError(f"{shown(target)} is a device or a pipe, and no picture is written there")


def _without_own_results(jobs: Sequence[Job], walked: set[Path]) -> list[Job]:
    """Drop what a walk found that is the result of another input of this run."""
    made_from = {job.target: job.source for job in jobs}
    return [job for job in jobs if job.source not in walked or made_from.get(job.source, job.source) == job.source]


def _disk_notes(jobs: Sequence[Job], options: UpscaleOptions) -> tuple[str, ...]:
    """Each picture alone has been found to fit; all of them together may not. How small they get is not known yet."""
    files = [job for job in jobs if job.target != STREAM]
    needed = sum(job.needed_bytes(options.write) for job in files)
    folder = files[0].target.parent if files else None
    while folder is not None and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if folder is None:
        return ()
    free = shutil.disk_usage(folder).free
    if needed <= free:
        return ()
    where = f"{shown(folder)} has {free / 1e9:.1f} GB free"
    return (f"all results together may take up to {needed / 1e9:.1f} GB, and {where}",)


# ----------------------------------------------------------------------------------------------------- what is done


def _recorded_state(job: Job, settings_key: str, listed: ResultState) -> ResultState:
    """What a result says of itself, where the folder's record is lost, or times have changed in a copy: done, if it was
    made of these very bytes with these settings; stale, if of a picture of this name; else what was `listed`."""
    try:
        made = read_header(job.target, max_pixels=_ANY_SIZE)
        record = provenance.read(made.metadata)
        if record is None or record.source_name != provenance.name_digest(job.source):
            return listed
        whole = (made.width, made.height, made.format) == (job.output.width, job.output.height, job.output.format)
        if record.settings == settings_key and whole:
            source = job.source if job.data is None else job.data
            return "done" if record.source_digest == provenance.bytes_digest(source) else "stale"
    except (PictureError, OSError):
        return listed
    return "stale"


def _skip_done(jobs: Sequence[Job], options: UpscaleOptions, settings_key: str) -> tuple[list[Job], list[Skip]]:
    todo: list[Job] = []
    skips: list[Skip] = []
    ledgers: dict[Path, Ledger] = {}
    for job in jobs:
        if job.target == STREAM or options.overwrite or not os.path.lexists(job.target):
            todo.append(replace(job, is_new=not options.overwrite))
        elif options.skip_existing:
            skips.append(Skip(job.source, job.target, "it exists already"))
        elif options.resume:
            assert job.ledger is not None
            ledger = ledgers.setdefault(job.ledger, Ledger.load(job.ledger))
            state = ledger.state(job.target, identity(job.source), settings_key)
            if state == "unknown" or (state == "stale" and ledger.lists(job.target)):
                state = _recorded_state(job, settings_key, state)
            if state == "done":
                skips.append(Skip(job.source, job.target, "it is done, with the same settings and weights"))
            elif state == "stale":
                todo.append(replace(job, is_new=False))
            else:
                raise SettingsError(
                    f"{job.target} exists, but no earlier run made it (its record is {ledger.path.name}); move it "
                    "away, or give --overwrite or --skip-existing"
                )
        else:
            count = sum(os.path.lexists(j.target) for j in jobs)
            others = f", and {count - 1} more" if count > 1 else ""
            raise SettingsError(
                f"{job.target} exists already{others}; give --overwrite, --skip-existing or --resume, or another -o"
            )
    return todo, skips
