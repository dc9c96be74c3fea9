"""The pictures of a run: files, folders, stdin; and their headers.

Neither torch nor a decoder is needed: only headers are read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from srgan_cli.config import UpscaleOptions
from srgan_cli.documents.document import Contents
from srgan_cli.documents.opening import container_of, read_contents
from srgan_cli.errors import NothingToDoError, PictureError, SettingsError, SrganError, UnreadablePictureError, shown
from srgan_cli.imaging.decoding import boundary
from srgan_cli.imaging.formats import PICTURE_SUFFIXES
from srgan_cli.imaging.image import Header, Metadata
from srgan_cli.imaging.metadata import provenance
from srgan_cli.imaging.reading import read_header
from srgan_cli.imaging.sources import Origin
from srgan_cli.stores import store
from srgan_cli.stores.failures import StoreError, given_up
from srgan_cli.stores.paths import StorePath, relative_to
from srgan_cli.stores.ranges import Ranges
from srgan_cli.stores.store import Stat
from srgan_cli.upscaling.ledger import identity
from srgan_cli.wording import counted

STREAM = Path("-")  # stdin as an input, stdout as the output
_HEADER_THREADS = 4  # network drives have high latency but answer in parallel
_STORE_THREADS = 16  # and stores even more


@dataclass(frozen=True)
class InputFile:
    """One input picture. `root` is the folder it was found under; None if the user named it directly. `stat`: size and
    version of an object in a store."""

    source: Path
    root: Path | None = None
    stat: Stat | None = None

    @property
    def relative(self) -> Path:
        """Its path relative to the folder, on this machine."""
        if self.root is not None:
            return relative_to(self.source, self.root)
        return self.source.plain if isinstance(self.source, StorePath) else Path(self.source.name)

    @property
    def identity(self) -> str:
        """As `ledger.identity`."""
        return identity(self.source) if self.stat is None else self.stat.version


@dataclass(frozen=True)
class Failure:
    """An input without a result, and the reason as a sentence. `kind` is the type of the error."""

    source: Path
    reason: str
    kind: type[SrganError] = PictureError
    target: Path | None = None  # of the affected result, if one was planned
    left: str = ""  # why it was not even tried: the same for many, and said once

    @property
    def sentence(self) -> str:
        """The reason, with the picture's name in front unless it already contains it."""
        names = str(self.source), shown(self.source)
        return self.reason if any(name in self.reason for name in names) else f"{names[0]}: {self.reason}"

    @property
    def unreadable(self) -> bool:
        return issubclass(self.kind, UnreadablePictureError)


@dataclass(frozen=True)
class Walk:
    """All inputs: pictures in order, each once; what could not be listed; and notes on what was skipped."""

    found: tuple[InputFile, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]


@dataclass
class _PassedOver:
    """What a walk has seen and skipped: other files by extension, and folders."""

    suffixes: Counter[str] = field(default_factory=Counter)
    folders: int = 0

    def notes(self) -> tuple[str, ...]:
        notes = []
        kinds = [(suffix, count, why) for suffix, count in self.suffixes.most_common() if (why := _WHY_NOT.get(suffix))]
        if kinds:
            listed = ", ".join(f"{count} {suffix[1:].upper()} ({why})" for suffix, count, why in kinds)
            notes.append(f"skipped in folders: {listed}")
        if self.folders:
            notes.append(
                f"skipped {counted(self.folders, 'subfolder')} of the inputs; give --recursive to include them"
            )
        return tuple(notes)


# Extensions of files that users may expect to be pictures but srgan cannot read; reported if a folder has them.
_NOT_READ = {
    "camera raw files: develop them first": "3fr arw cr2 cr3 crw dng erf iiq kdc mef mos mrw nef nrw orf pef raf "
    "raw rw2 sr2 srf srw x3f",
    "read only if you name them": "pdf zip",
    "videos": "3gp avi m4v mkv mov mp4 mpg mpeg mts webm wmv",
    "not a format srgan reads": "ai cb7 cbr cbt cdr dds djv djvu emf eps exr fit fits flif hdr icns ico iff jbig2 jng "
    "jxl jxr mng pam pcx pfm psb psd qoi rgb sgi svg tga wmf xcf",
}
_WHY_NOT = {f".{ending}": why for why, endings in _NOT_READ.items() for ending in endings.split()}


def find_inputs(options: UpscaleOptions) -> Walk:
    """All inputs. Raises `NothingToDoError` if they contain no picture at all."""
    found: dict[Path, InputFile] = {}
    folders: dict[Path, str] = {}
    failures: list[Failure] = []
    passed_over = _PassedOver()
    for path in options.inputs:
        try:
            for one in _found_at(path, options, failures, passed_over):
                found.setdefault(_place(one.source, folders), one)
        except StoreError as err:
            failures.append(_unreachable(path, err))
        except OSError as err:  # a name that is too long, or in a folder without access
            why = f"{path} cannot be opened: {(err.strerror or '').lower()}"
            failures.append(Failure(path, why, UnreadablePictureError))
    if not found and not failures:
        raise NothingToDoError("; ".join((_nothing_found(options), *passed_over.notes())))
    return Walk(tuple(found.values()), tuple(failures), passed_over.notes())


def _found_at(
    path: Path, options: UpscaleOptions, failures: list[Failure], passed_over: _PassedOver
) -> Iterable[InputFile]:
    if path == STREAM:
        return (InputFile(path),)
    if isinstance(path, StorePath):
        return _in_store(path, options, passed_over)
    return _walk(path, options, failures, passed_over) if path.is_dir() else (InputFile(path),)


def _place(path: Path, folders: dict[Path, str]) -> Path:
    """The same for all spellings of a path (`a.png`, `sub/../a.png`), so that a picture is made once. A link to a
    picture has a name, and so a result, of its own; `folders` remembers where the folders really are."""
    if path == STREAM or isinstance(path, StorePath):
        return path
    parent = path.parent
    return Path(folders.get(parent) or folders.setdefault(parent, os.path.realpath(parent)), path.name)


def headers(
    found: Sequence[InputFile], options: UpscaleOptions, stdin: bytes | None
) -> Iterator[tuple[InputFile, Header | Contents | PictureError]]:
    """The header of each file, in order; several are read in parallel. `Contents` if it has several pages, or if
    particular pages are requested.

    Metadata is read again when a picture is enlarged: that of a million photos would take gigabytes. Only srgan's own
    provenance record is kept.
    """

    def read(one: InputFile) -> Header | Contents | PictureError:
        try:
            source = _origin(one, stdin)
        except PictureError as err:
            return err
        try:
            with boundary(shown(one.source)):
                return _slim(_header_of(source, options))
        except PictureError as err:
            return (source.lost if isinstance(source, Ranges) else None) or err

    threads = _STORE_THREADS if any(one.stat is not None for one in found) else _HEADER_THREADS
    if len(found) <= _HEADER_THREADS:
        yield from ((one, read(one)) for one in found)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from zip(found, pool.map(read, found), strict=True)


def _header_of(source: Origin, options: UpscaleOptions) -> Header | Contents:
    if container_of(source) is None:
        header = read_header(source, max_pixels=options.max_pixels, accept_damaged=options.accept_damaged)
        wanted = options.pages.of(header.pages)  # a file may claim to have billions
        if (header.pages == 1 and len(wanted)) or wanted == range(1, 2):
            return header
    return read_contents(source, options.pages, max_pixels=options.max_pixels, accept_damaged=options.accept_damaged)


def _slim(answer: Header | Contents) -> Header | Contents:
    if isinstance(answer, Contents):
        return replace(answer, pages=(_slim_header(answer.pages[0]), *answer.pages[1:]))
    return _slim_header(answer)


def _slim_header(header: Header) -> Header:
    is_made = provenance.read(header.metadata) is not None
    return replace(header, metadata=Metadata(xmp=header.metadata.xmp if is_made else None))


def _origin(one: InputFile, stdin: bytes | None) -> Origin:
    if one.source == STREAM:
        return stdin or b""
    return Ranges(one.source, one.stat) if isinstance(one.source, StorePath) else one.source


def _unreachable(path: Path, err: StoreError) -> Failure:
    """Raises `SettingsError` if all pictures of that store would fail the same way."""
    if err.trouble.concerns_all:
        raise SettingsError(f"{path} cannot be read: {err.trouble.why}") from err
    return Failure(path, f"{path} cannot be read: {err.trouble.why}", UnreadablePictureError, left=given_up(err))


def _unlistable(path: Path, err: OSError) -> Failure:
    return Failure(path, f"the folder cannot be listed: {(err.strerror or '').lower()}", UnreadablePictureError)


def pictures_below(root: Path, options: UpscaleOptions) -> list[InputFile]:
    """The pictures that a walk through a folder finds; what cannot be listed is skipped."""
    return list(_walk(root, options, [], _PassedOver()))


def _walk(
    root: Path, options: UpscaleOptions, failures: list[Failure], passed_over: _PassedOver
) -> Iterable[InputFile]:
    """Pictures under a folder, sorted, without hidden ones and earlier results in the output folder."""
    output = options.output.resolve() if options.output is not None and options.output != STREAM else None

    def note(err: OSError) -> None:
        failures.append(_unlistable(Path(err.filename or root), err))

    for folder, folders, files in os.walk(root, onerror=note):
        here = Path(folder)
        others = [name for name in folders if not name.startswith(".") and (here / name).resolve() != output]
        folders[:] = sorted(others) if options.recursive else []
        passed_over.folders += len(others) - len(folders)
        for name in sorted(name for name in files if not name.startswith(".")):
            path = here / name
            if path.suffix.lower() not in (*PICTURE_SUFFIXES, ".cbz"):
                passed_over.suffixes[path.suffix.lower()] += 1
            elif _is_wanted(path.relative_to(root).as_posix(), options):
                yield InputFile(path, root)


def _in_store(path: StorePath, options: UpscaleOptions, passed_over: _PassedOver) -> Iterable[InputFile]:
    """An object, or the pictures below a prefix. Raises `StoreError`, and `SettingsError` if URLs of this kind cannot
    be read."""
    store.check(path)
    stat = store.stat(path)
    if stat is not None or path.is_web:
        yield InputFile(path, stat=stat)
        return
    below = store.listing(path, recursive=options.recursive)
    if not below.objects and not below.folders:
        yield InputFile(path)  # the reader reports that it does not exist
    output = options.output
    passed_over.folders += below.folders
    for source, found in below.objects:
        relative = source.relative_to(path)
        if any(part.startswith(".") for part in relative.parts):
            continue
        if output is not None and source.is_relative_to(output) and output != path:
            continue
        if source.suffix.lower() not in (*PICTURE_SUFFIXES, ".cbz"):
            passed_over.suffixes[source.suffix.lower()] += 1
        elif _is_wanted(relative.as_posix(), options):
            yield InputFile(source, path, found)


def _is_wanted(relative: str, options: UpscaleOptions) -> bool:
    return (not options.include or _matches(relative, options.include)) and not _matches(relative, options.exclude)


def _matches(relative: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches the path relative to the given folder, or the bare name; case is ignored."""
    name = relative.rsplit("/", 1)[-1]
    return any(fnmatchcase(text.casefold(), p.casefold()) for p in patterns for text in (relative, name))


def _nothing_found(options: UpscaleOptions) -> str:
    where = ", ".join(str(path) for path in options.inputs[:3]) or "the list"
    patterns = [f"--include {one}" for one in options.include] + [f"--exclude {one}" for one in options.exclude]
    return f"no pictures were found in {where}" + (f" with {shown(' '.join(patterns[:5]))}" if patterns else "")
