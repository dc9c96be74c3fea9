"""What a run will do, resolved before it does anything: which pictures, how large, under which names.

Neither torch nor a decoder is needed: only the pictures' headers are read, so `--dry-run` is instant and a mistake in
the names is found before the first minute of work is lost.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from srgan_cli.config import UpscaleOptions
from srgan_cli.errors import NothingToDoError, PictureError, SettingsError, SrganError, UnreadablePictureError, shown
from srgan_cli.imaging.formats import FORMATS, PICTURE_SUFFIXES, format_of_suffix
from srgan_cli.imaging.image import Depth, Header
from srgan_cli.imaging.reading import read_header
from srgan_cli.imaging.writing import check_output, final_depth, needed_bytes, output_format
from srgan_cli.networks.registry import MODEL_SUFFIXES
from srgan_cli.upscaling.ledger import Ledger, identity
from srgan_cli.upscaling.tiles import choose_scales

STREAM = Path("-")  # stdin as an input, stdout as the output
# Pictures up to this size are decoded ahead, whole; larger ones are read row by row while they are upscaled.
READ_AHEAD_BYTES = 96 << 20
# Results up to this size are built in memory; larger ones in a scratch file beside the target.
CANVAS_BYTES = 192 << 20
_HEADER_THREADS = 4  # network drives answer slowly but several at a time


@dataclass(frozen=True)
class Found:
    """One input picture. `root` is the folder it was found under; None when it was named itself."""

    source: Path
    root: Path | None = None

    @property
    def relative(self) -> Path:
        return self.source.relative_to(self.root) if self.root is not None else Path(self.source.name)


@dataclass(frozen=True)
class Job:
    """One picture to be made. `scales` are the networks' factors in order; the result is then resampled to
    `width` × `height` px where their product is not exact, and written as `format` with `depth` bits per sample.
    `ledger` is the folder whose record it goes into; `data` holds what stdin gave. `model` is the one that will make
    it and `why` the reason; empty where that is still to be chosen."""

    source: Path
    target: Path
    header: Header
    scales: tuple[int, ...]
    width: int
    height: int
    format: str
    depth: Depth
    ledger: Path | None = None
    data: bytes | None = None
    is_new: bool = True  # nothing is to be replaced
    model: str = ""
    why: str = ""

    @property
    def network_scale(self) -> int:
        return math.prod(self.scales)

    @property
    def raw_bytes(self) -> int:
        """The result before compression."""
        return self.width * self.height * self.header.channels * self.depth // 8

    @property
    def canvas_bytes(self) -> int:
        """What the network's own result takes, in memory or in a scratch file."""
        return self.network_pixels * self.header.channels * self.depth // 8

    @property
    def scratch_bytes(self) -> int:
        """What a large picture needs on the target's disk while it is made."""
        return self.canvas_bytes if self.canvas_bytes > CANVAS_BYTES else 0

    @property
    def memory_bytes(self) -> int:
        """Largest share of memory of one picture, the network aside."""
        return min(self.header.decoded_bytes, READ_AHEAD_BYTES) + self.canvas_bytes - self.scratch_bytes

    @property
    def network_pixels(self) -> int:
        """Output px of the network: what takes the time."""
        return self.header.width * self.header.height * self.network_scale**2


@dataclass(frozen=True)
class Failure:
    """One input that could not be made into a result, and why, in a sentence. `kind` is the error that it was."""

    source: Path
    reason: str
    kind: type[SrganError] = PictureError

    @property
    def sentence(self) -> str:
        """The reason, with the picture's name in front unless it says so itself."""
        names = str(self.source), shown(self.source)
        return self.reason if any(name in self.reason for name in names) else f"{names[0]}: {self.reason}"

    @property
    def unreadable(self) -> bool:
        return issubclass(self.kind, UnreadablePictureError)


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
    def exit_code(self) -> int:
        """What a run could at best end with."""
        return exit_code(bool(self.jobs or self.skips or self.cut_short), self.failures)


def exit_code(some_done: bool, failures: Sequence[Failure]) -> int:
    """0 all done, 1 some failed, 3 nothing was readable."""
    if failures and not some_done and all(failure.unreadable for failure in failures):
        return NothingToDoError.exit_code
    return 1 if failures else 0


def plan(
    options: UpscaleOptions, available_scales: tuple[int, ...], settings_key: str, *, stdin: bytes | None = None
) -> Plan:
    """Resolve a run. `available_scales` are those of the model's networks; `settings_key` identifies everything that
    decides a result but its input (`--resume` compares it). `stdin` is what `-` stands for among the inputs.

    Raises `SettingsError` for collisions, results that exist already, or an input that would be overwritten;
    `NothingToDoError` when the inputs hold no picture at all.
    """
    found, failures = _find(options)
    if not found and not failures:
        raise NothingToDoError(_nothing_found(options))
    into = _output_folder(options, found)
    found = _without_earlier_results(found, into)
    jobs: list[Job] = []
    for index, (one, answer) in enumerate(_headers(found, options.max_pixels, stdin), start=1):
        if isinstance(answer, UnreadablePictureError):
            failures.append(Failure(one.source, str(answer), UnreadablePictureError))
            continue
        try:
            jobs.append(_job(one, answer, options, available_scales, into, len(found), index, stdin))
        except (PictureError, SettingsError) as err:
            if isinstance(err, SettingsError) and len(found) == 1:  # the options are wrong, not one of many pictures
                raise SettingsError(f"{shown(one.source)}: {err}") from err
            failures.append(Failure(one.source, str(err), type(err)))
    jobs = _without_own_results(jobs, {one.source for one in found if one.root is not None})
    _refuse_own_inputs(jobs)
    _refuse_collisions(jobs)
    jobs, skips = _skip_done(jobs, options, settings_key)
    if options.fail_fast and failures:
        return Plan((), tuple(skips), tuple(failures), cut_short=bool(jobs))
    return Plan(tuple(jobs), tuple(skips), tuple(failures), _disk_notes(jobs, options))


def _disk_notes(jobs: Sequence[Job], options: UpscaleOptions) -> tuple[str, ...]:
    """Each picture alone has been found to fit; all of them together may not. How small they get is not known yet."""
    needed = sum(needed_bytes(job.format, job.raw_bytes, options.write) for job in jobs if job.target != STREAM)
    folder = next((job.target.parent for job in jobs if job.target != STREAM), None)
    while folder is not None and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if folder is None:
        return ()
    free = shutil.disk_usage(folder).free
    if needed <= free:
        return ()
    where = f"{shown(folder)} has {free / 1e9:.1f} GB free"
    return (f"all results together may take up to {needed / 1e9:.1f} GB, and {where}",)


# ------------------------------------------------------------------------------------------------------------- inputs


def _find(options: UpscaleOptions) -> tuple[list[Found], list[Failure]]:
    found: dict[Path, Found] = {}
    failures: list[Failure] = []
    for path in options.inputs:
        if path == STREAM:
            found.setdefault(path, Found(path))
            continue
        try:
            if path.is_dir():
                for one in _walk(path, options, failures):
                    found.setdefault(one.source, one)
            else:
                found.setdefault(path, Found(path))
        except OSError as err:
            failures.append(_unlistable(path, err))
    return list(found.values()), failures


def _unlistable(path: Path, err: OSError) -> Failure:
    return Failure(path, f"the folder cannot be listed: {(err.strerror or '').lower()}", UnreadablePictureError)


def _walk(root: Path, options: UpscaleOptions, failures: list[Failure]) -> Iterable[Found]:
    """Pictures under a folder, sorted; hidden ones and what an earlier run put into the output folder left out."""
    output = options.output.resolve() if options.output is not None and options.output != STREAM else None

    def note(err: OSError) -> None:
        failures.append(_unlistable(Path(err.filename or root), err))

    for folder, folders, files in os.walk(root, onerror=note):
        here = Path(folder)
        folders[:] = sorted(
            name
            for name in folders
            if options.recursive and not name.startswith(".") and (output is None or (here / name).resolve() != output)
        )
        for name in sorted(files):
            path = here / name
            relative = path.relative_to(root).as_posix()
            if (
                not name.startswith(".")
                and Path(name).suffix.lower() in PICTURE_SUFFIXES
                and (not options.include or _matches(relative, options.include))
                and not _matches(relative, options.exclude)
            ):
                yield Found(path, root)


def _matches(relative: str, patterns: Sequence[str]) -> bool:
    """A pattern is held against the path under the folder given, and against the bare name; case does not count."""
    name = relative.rsplit("/", 1)[-1]
    return any(fnmatchcase(text.casefold(), p.casefold()) for p in patterns for text in (relative, name))


def _nothing_found(options: UpscaleOptions) -> str:
    where = ", ".join(str(path) for path in options.inputs[:3]) or "the list"
    hint = "" if options.recursive else "; folders below are only entered with --recursive"
    return f"no pictures were found in {where}{hint}"


def _headers(
    found: Sequence[Found], max_pixels: int, stdin: bytes | None
) -> Iterable[tuple[Found, Header | UnreadablePictureError]]:
    def read(one: Found) -> Header | UnreadablePictureError:
        try:
            return read_header(stdin or b"" if one.source == STREAM else one.source, max_pixels=max_pixels)
        except UnreadablePictureError as err:
            return err

    if len(found) <= _HEADER_THREADS:
        return [(one, read(one)) for one in found]
    with ThreadPoolExecutor(_HEADER_THREADS) as pool:
        return list(zip(found, pool.map(read, found), strict=True))


# -------------------------------------------------------------------------------------------------------------- names


def _output_folder(options: UpscaleOptions, found: Sequence[Found]) -> Path | None:
    """The folder results go to; None when `-o` names one file, is `-`, or was not given.

    Raises `SettingsError` when one file is to hold several results.
    """
    output = options.output
    if output is None:
        return None
    several = len(found) > 1 or any(one.root is not None for one in found)
    if output == STREAM:
        if several:
            raise SettingsError(f"-o - writes one result to stdout, but there are {len(found)} inputs")
        return None
    if output.is_dir() or options.output_is_folder:
        return output
    known = output.suffix and format_of_suffix(output.suffix) is not None
    if several:
        if output.exists():
            raise SettingsError(f"-o {output} is a file, but there are {len(found)} inputs: give a folder")
        if known:
            raise SettingsError(f"-o {output} names one picture, but there are {len(found)} inputs: give a folder")
        return output
    if known:
        return None
    if output.suffix:
        formats = ", ".join(f.suffixes[0] for f in FORMATS.values() if f.writable)
        raise SettingsError(f"-o {output}: {output.suffix!r} is no format that can be written ({formats})")
    return output


def _job(
    one: Found,
    header: Header,
    options: UpscaleOptions,
    available_scales: tuple[int, ...],
    into: Path | None,
    count: int,
    index: int,
    stdin: bytes | None,
) -> Job:
    width, height = options.size.target(header.width, header.height)
    ratio = max(width / header.width, height / header.height) if options.size.scale is None else options.size.scale
    to_file = options.output if into is None and options.output not in (None, STREAM) else None
    format_key = output_format(to_file, header, options.write)
    if to_file is not None and format_of_suffix(to_file.suffix) not in (None, format_key):
        raise SettingsError(f"-o {shown(to_file)} is the name of another format than --format {options.write.format}")
    if to_file is not None:
        target = to_file
    elif options.output == STREAM:
        target = STREAM
    else:
        target = _target(one, header, format_key, options, into, width, height, index)
    keeps_record = target != STREAM and (options.resume or count > 1 or into is not None or one.root is not None)
    job = Job(
        source=one.source,
        target=target,
        header=header,
        scales=choose_scales(available_scales, ratio),
        width=width,
        height=height,
        format=format_key,
        depth=final_depth(format_key, header.depth, options.write),
        ledger=(into or one.root or target.parent) if keeps_record else None,
        data=stdin if one.source == STREAM else None,
    )
    check_output(
        format_key,
        width,
        height,
        header.channels,
        job.depth,
        options.write,
        target=None if target == STREAM else target,
        scratch_bytes=job.scratch_bytes,
    )
    return job


def _target(
    one: Found, header: Header, format_key: str, options: UpscaleOptions, into: Path | None, width: int, height: int,
    index: int,
) -> Path:  # fmt: skip
    own = Path("stdin") if one.source == STREAM else one.relative
    keeps = format_of_suffix(own.suffix) == format_key
    suffix = own.suffix if keeps else FORMATS[format_key].suffixes[0]
    pattern = options.name_pattern or ("{stem}{ext}" if into is not None else "{stem}_x{scale}{ext}")
    name = pattern.format(
        stem=own.stem,
        ext=suffix,
        scale=f"{round(width / header.width, 2):g}",
        model=_model_name(options.model),
        width=width,
        height=height,
        index=index,
    )
    if options.name_pattern is not None and format_of_suffix(Path(name).suffix) != format_key:
        name += suffix
    if into is not None:
        return into / own.parent / name
    return (Path() if one.source == STREAM else one.source.parent) / name


def _model_name(model: str) -> str:
    """For names of results: of a file or a folder the last part, else (`srgan@0.5`) as it is."""
    path = Path(model)
    return path.stem if path.suffix.lower() in MODEL_SUFFIXES else path.name or "model"


def _same(source: Path, target: Path) -> bool:
    try:
        return source.samefile(target)
    except OSError:
        return False


def _without_own_results(jobs: Sequence[Job], walked: set[Path]) -> list[Job]:
    """Drop what a walk found that is the result of another input of this run: a second run over the same folder must
    not enlarge `a_x4.jpg` to `a_x4_x4.jpg`."""
    made_from = {job.target: job.source for job in jobs}
    return [job for job in jobs if job.source not in walked or made_from.get(job.source, job.source) == job.source]


def _without_earlier_results(found: Sequence[Found], into: Path | None) -> list[Found]:
    """The same for the results of earlier runs with other settings, which the folder's record knows."""
    records = {root: Ledger.load(into or root) for root in {one.root for one in found} if root is not None}
    return [one for one in found if one.root is None or not records[one.root].holds(one.source)]


def _refuse_own_inputs(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if STREAM not in (job.source, job.target) and _same(job.source, job.target):
            raise SettingsError(
                f"{job.source} would be overwritten by its own result {job.target}; give another -o, or --name"
            )


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    seen: dict[str, Job] = {}
    for job in jobs:
        if job.target == STREAM:
            continue
        # Many file systems tell no case apart; two names that differ only in it are not worth the risk.
        key = str(job.target.absolute()).casefold()
        if key in seen:
            raise SettingsError(
                f"{seen[key].source} and {job.source} would both become {job.target}; use --name, for example "
                "--name '{stem}_{index}{ext}', or separate runs"
            )
        seen[key] = job
    sources = {str(job.source.absolute()).casefold(): job for job in jobs if job.source != STREAM}
    for job in jobs:
        other = sources.get(str(job.target.absolute()).casefold())
        if other is not None and job.target != STREAM:
            raise SettingsError(
                f"the result of {job.source} would overwrite the input {other.source}; use --name or -o"
            )


# ----------------------------------------------------------------------------------------------------- what is done


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
