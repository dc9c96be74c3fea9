"""From options to a `Plan`, resolved before anything is done.

Neither torch nor a decoder is needed, so `--dry-run` is instant, and mistakes in names are found before any work is
lost.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from srgan_cli.config import UpscaleOptions
from srgan_cli.documents.document import Contents
from srgan_cli.engine.tiles import choose_scales
from srgan_cli.errors import PictureError, SettingsError, UnwritablePictureError, shown
from srgan_cli.files import is_folder, is_special
from srgan_cli.handles import link_below
from srgan_cli.imaging.formats import CONTAINERS, FORMATS, format_of_suffix
from srgan_cli.imaging.image import Header
from srgan_cli.imaging.metadata import provenance
from srgan_cli.imaging.output import Output, decide
from srgan_cli.sizes import Aim
from srgan_cli.stores import store
from srgan_cli.stores.paths import StorePath
from srgan_cli.upscaling import inputs, names
from srgan_cli.upscaling.done import without_done
from srgan_cli.upscaling.inputs import STREAM, Failure, InputFile, Walk
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
from srgan_cli.upscaling.plan import Job, Plan, Skip
from srgan_cli.upscaling.present import check_result, exists
from srgan_cli.wording import size

_LARGE = "it is large enough already"


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
    on_work: Callable[[], None] | None = None,
) -> Plan:
    """Resolve a run. `available_scales` are those of the model's networks. `settings_key` identifies everything but the
    input that determines a result (`--resume` compares it). `stdin` is the content of `-` among the inputs, which are
    those of `options` unless the caller has `found` them already. `on_work` is called when the first picture to be
    enlarged is found, while headers of others are still being read; the plan may still be refused.

    Raises `SettingsError` for collisions, existing results, or an input that would be overwritten; `NothingToDoError`
    if the inputs contain no picture at all.
    """
    if isinstance(options.output, StorePath):
        store.check(options.output, writing=True)
    walk = inputs.find_inputs(options) if found is None else Walk(tuple(found), (), ())
    failures = list(walk.failures)
    into = names.output_folder(options, walk.found)
    if _named_file(options, into) is None and options.output != STREAM:
        options = names.with_format_of_pattern(options)
    found = names.without_earlier_results(walk.found, into)
    # Before the headers are read if no name depends on pictures of other shards; see `_in_shard`.
    early = into is not None and options.name_pattern is None
    found = [one for one in found if not early or _in_shard(one, options)]
    sized: list[_Sized] = []
    paged: list[str] = []  # notes on documents that become many files
    answers = []
    for one, answer in inputs.headers(found, options, stdin):
        answers.append((one, answer))
        if on_work is not None and _is_to_do(one, answer, options, into, len(answers)):
            on_work()
            on_work = None
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
    sized = [variant for one in sized for variant in _variants(one, options)]
    targets, notes = _targets(sized, options, into)
    run = _Run(options, available_scales, into, stdin, keeps_record=options.resume or not alone or into is not None)
    jobs: list[Job] = []
    for each, target in zip(sized, targets, strict=True):
        with _one_failing(each.one, failures, alone=alone):
            jobs.append(_job(each, target, run))
    jobs = _without_own_results(jobs, {one.source for one in found if one.root is not None})
    names.refuse_losses([(job.source, job.target) for job in jobs])
    jobs, done = without_done([job for job in jobs if job.source not in others], options, settings_key)
    jobs = list(_with_room(jobs, options, failures))
    skips = [skip for skip in skips if skip.source not in others] + done
    failures = [failure for failure in failures if failure.source not in others]
    notes = [*walk.notes, *paged, *notes, *_disk_notes(jobs, options), *_time_notes(jobs, options)]
    if options.fail_fast and failures:
        return Plan((), tuple(skips), tuple(failures), tuple(notes), cut_short=bool(jobs))
    return Plan(tuple(jobs), tuple(skips), tuple(failures), tuple(notes))


def _in_shard(one: InputFile, options: UpscaleOptions) -> bool:
    """Whether a picture is in this run's shard. Pictures whose results could have the same name are in the same one."""
    return options.shard is None or options.shard.has(one.relative.with_suffix("").as_posix())


@contextmanager
def _one_failing(one: InputFile, failures: list[Failure], *, alone: bool) -> Iterator[None]:
    """A fault of one picture becomes a failure of that picture; options that suit no picture are an error."""
    try:
        yield
    except (PictureError, SettingsError) as err:
        if isinstance(err, SettingsError) and alone:
            raise type(err)(f"{shown(one.source)}: {err.sentence}") from err
        failures.append(Failure(one.source, err.sentence, type(err)))


def _is_to_do(
    one: InputFile, answer: Header | Contents | PictureError, options: UpscaleOptions, into: Path | None, index: int
) -> bool:
    """Whether a picture will certainly be enlarged, unless the whole plan is refused, judged before the others are
    known. In a store, which answers slowly, only the first one is looked up."""
    if not isinstance(answer, Header) or provenance.read(answer.metadata) is not None or not _in_shard(one, options):
        return False
    if index > 1 and isinstance(into or options.output or one.source, StorePath):
        return False
    with suppress(PictureError, SettingsError, OSError):
        sized = _sized(one, answer, options, into, index)
        target = _named_file(options, into) or sized.naming.target(options)
        is_free = options.output == STREAM or options.overwrite or not exists(target)
        return is_free and not _is_left_out(sized, options)
    return False


def _first_header(answer: Header | Contents | PictureError) -> Header | None:
    return answer.pages[0] if isinstance(answer, Contents) else answer if isinstance(answer, Header) else None


def _named_file(options: UpscaleOptions, into: Path | None) -> Path | None:
    """The single file that `-o` names."""
    return options.output if into is None and options.output not in (None, STREAM) else None


def _sized(one: InputFile, header: Header, options: UpscaleOptions, into: Path | None, index: int) -> _Sized:
    aim = aim_of(header, options)
    to_file = _named_file(options, into)
    output = decide(to_file, header, options.write, width=aim.width, height=aim.height, dpi=options.size.resolution)
    _refuse_two_formats(to_file, output, options)
    return _Sized(one, header, aim, output, Naming(one, _named_scale(aim.width, header, options), output, into, index))


def _named_scale(width: int, header: Header, options: UpscaleOptions) -> float:
    """The scale that was asked for; only with a size in px the result's own, which rounding makes uneven."""
    return options.size.scale or width / header.width


def _refuse_two_formats(to_file: Path | None, output: Output, options: UpscaleOptions) -> None:
    if to_file is not None and format_of_suffix(to_file.suffix) not in (None, output.format):
        raise SettingsError(f"the extension of -o {shown(to_file)} does not match --format {options.write.format}")


def _document(
    one: InputFile, contents: Contents, options: UpscaleOptions, into: Path | None, index: int, scales: tuple[int, ...]
) -> tuple[list[_Sized], list[str]]:
    """A document that stays one file; or its pages, each as a separate picture, and a note on them."""
    to_file = _named_file(options, into)
    if stays_one_file(contents, to_file, options):
        pages = page_jobs(contents, to_file, options, scales)
        first = pages[0]
        container = contents.format if contents.format in CONTAINERS else None
        if container is None:
            _refuse_two_formats(to_file, first.output, options)
        ratios = [aim_of(page.header, options) for page in pages]
        aim = max(ratios, key=lambda each: each.ratio)
        scale = _named_scale(first.output.width, first.header, options)
        naming = Naming(one, scale, first.output, into, index, container=container)
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


def _variants(sized: _Sized, options: UpscaleOptions) -> list[_Sized]:
    """One job for each variant. Pictures that need no network have no variants."""
    if options.variants == 1 or (options.size.only_enlarge and sized.aim.ratio <= 1):
        return [sized]
    if options.output == STREAM:
        raise SettingsError(f"-o - writes one result to stdout, but --variants makes {options.variants}")
    numbers = range(1, options.variants + 1)
    return [replace(sized, naming=replace(sized.naming, variant=number)) for number in numbers]


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
        version="" if one.stat is None else one.stat.version,
        notes=(*header.notes, sized.aim.note) if sized.aim.note else header.notes,
        page=sized.page,
        pages=sized.pages,
        container=sized.naming.container,
        variant=sized.naming.variant,
        is_copy=not (enlarged or sized.page or sized.pages)
        and options.size.copy_large == "copy"
        and _is_same_file(header, output, options),
    )
    if target != STREAM:
        if not isinstance(target, StorePath) and (run.into is not None or options.output is None):
            _refuse_detours(target, run.into or one.root or target.parent)
        if not _may_stay(target, options):
            _check_room(job, options)
    return job


def _may_stay(target: Path, options: UpscaleOptions) -> bool:
    """Whether a result may exist already, and so need no space."""
    return (options.resume or options.skip_existing) and not isinstance(target, StorePath) and target.is_file()


def _check_room(job: Job, options: UpscaleOptions) -> None:
    check_result(job.target, job.needed_bytes(options.write) + job.scratch_bytes)


def _with_room(jobs: Sequence[Job], options: UpscaleOptions, failures: list[Failure]) -> Iterator[Job]:
    """The jobs whose results fit on the disk, including those to be replaced."""
    for job in jobs:
        try:
            if job.target != STREAM and _may_stay(job.target, options):
                _check_room(job, options)
        except PictureError as err:
            failures.append(Failure(job.source, err.sentence, type(err)))
        else:
            yield job


def _scales(sized: _Sized, run: _Run) -> tuple[int, ...]:
    if sized.pages:
        return next((page.scales for page in sized.pages if page.scales), ())
    return choose_scales(run.available_scales, sized.aim.ratio)


def _is_same_file(header: Header, output: Output, options: UpscaleOptions) -> bool:
    """Whether the result would equal the input, so that its bytes may be copied."""
    return (output.format, output.depth) == (header.format, header.depth) and options.write.strip == "none"


def _refuse_detours(target: Path, base: Path) -> None:
    """Refuse to write through a link or to a special file, unless the user gave that name."""
    link = link_below(base, target.parent)
    if link is not None:
        raise UnwritablePictureError(
            f"{shown(link)} is a link, but below {shown(base)} results are written only into real folders; "
            "give the folder that it leads to as -o"
        )
    if is_special(target) and not is_folder(target):
        raise UnwritablePictureError(f"{shown(target)} is a device or a pipe, and pictures are not written there")


def _without_own_results(jobs: Sequence[Job], walked: set[Path]) -> list[Job]:
    """Remove pictures found by a walk that are results of other inputs of this run."""
    made_from = {job.target: job.source for job in jobs}
    return [job for job in jobs if job.source not in walked or made_from.get(job.source, job.source) == job.source]


def _time_notes(jobs: Sequence[Job], options: UpscaleOptions) -> tuple[str, ...]:
    if options.write.keep_time and any(isinstance(job.target, StorePath) for job in jobs):
        return ("--keep-time has no effect in a store: its objects have the time of their upload",)
    return ()


def _disk_notes(jobs: Sequence[Job], options: UpscaleOptions) -> tuple[str, ...]:
    """Notes if the results may not fit on the disk together. Each has been found to fit alone; compressed sizes are not
    known yet."""
    files = [job for job in jobs if job.target != STREAM and not isinstance(job.target, StorePath)]
    needed = sum(job.needed_bytes(options.write) for job in files)
    folder = files[0].target.parent if files else None
    while folder is not None and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if folder is None:
        return ()
    free = shutil.disk_usage(folder).free
    if needed <= free:
        return ()
    where = f"{shown(folder)} has {size(free)} free"
    return (f"all results together may take up to {size(needed)}, and {where}",)
