"""Archives of pictures: `.cbz` and `.zip`. Nothing is ever extracted to disk.

Archives are untrusted: names that lead out of it, links, encrypted members, and members that overlap or expand a
thousandfold are refused before anything is decompressed.
"""

from __future__ import annotations

import io
import itertools
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from srgan_cli.config import WriteOptions
from srgan_cli.documents.binding import Notes, Page
from srgan_cli.documents.document import Closing, Kind, Timing, check_count
from srgan_cli.documents.stream import Stream
from srgan_cli.errors import UnreadablePictureError, shown
from srgan_cli.imaging.encoding import encode
from srgan_cli.imaging.formats import FORMATS, PICTURE_SUFFIXES, format_of_suffix
from srgan_cli.imaging.reading import OpenPicture, open_picture
from srgan_cli.imaging.sources import Source

_MAX_MEMBERS = 20_000
_DEFLATE = 1032  # maximum expansion of one byte (zlib's own figure)
_MAX_MEMBER_BYTES = 1 << 30
# Limits for all members together; the first may be exceeded only if the archive itself is that large.
_MAX_TOTAL_BYTES, _MAX_RATIO = 4 << 30, 100
_LOCAL_BYTES = 30
_ARCHIVES = (".zip", ".cbz", ".rar", ".cbr", ".7z", ".cb7", ".tar", ".gz", ".xz")
_COPIED_BYTES = 1 << 20


_DAMAGE: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
)
with suppress(ImportError):  # some builds of Python have no lzma
    from lzma import LZMAError

    _DAMAGE = (*_DAMAGE, LZMAError)


class Archive(Closing):
    """An open archive, whose pages are its pictures, in the archive's own order. Closes `source`."""

    kind: Kind = "pages"
    timing: Timing | None = None

    def __init__(self, source: Source, max_pixels: int, *, accept_damaged: bool = False) -> None:
        self._source, self._max_pixels, self._accept = source, max_pixels, accept_damaged
        self.name = source.name
        with self._reading():
            self._zip = zipfile.ZipFile(Stream(source))
        self.members = tuple(self._zip.infolist())
        self.comment = self._zip.comment
        _refuse_hostile(source, self.members)
        self._pictures = [index for index, member in enumerate(self.members) if _is_picture(member)]
        self._numbers = {member: number for number, member in enumerate(self._pictures, start=1)}
        check_count(source, len(self._pictures))
        if not self._pictures:
            raise UnreadablePictureError(f"{source.name} is an archive without pictures")

    @property
    def count(self) -> int:
        return len(self._pictures)

    @property
    def notes(self) -> tuple[str, ...]:
        nested = sum(Path(member.filename).suffix.lower() in _ARCHIVES for member in self.members)
        return (f"archives inside the archive are kept unchanged: {nested}",) if nested else ()

    def number_of(self, member: int) -> int | None:
        """The page number (from 1) of a member; None if it is not a picture."""
        return self._numbers.get(member)

    def open(self, number: int) -> OpenPicture:
        member = self.members[self._pictures[number]]
        source = Source(self.sample(number) or b"\0")
        source.name = f"page {number + 1} ({shown(member.filename)}) of {self.name}"
        return open_picture(source, max_pixels=self._max_pixels, accept_damaged=self._accept)

    def sample(self, number: int) -> bytes:
        """The bytes of a page's file."""
        member = self.members[self._pictures[number]]
        with self._reading():
            return self._zip.read(member)

    def copy(self, member: int, into: Any) -> None:
        """Copy a member's decompressed contents into a file."""
        with self._reading(), self._zip.open(self.members[member]) as file:
            while part := file.read(_COPIED_BYTES):
                into.write(part)

    def close(self) -> None:
        self._zip.close()
        self._source.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            if err.errno is not None:  # disk number; bz2 members have none
                raise
            raise UnreadablePictureError(f"{self.name} is damaged or incomplete: {err}") from err
        except _DAMAGE as err:
            raise UnreadablePictureError(f"{self.name} is damaged or incomplete: {err}") from err
        except (NotImplementedError, RuntimeError) as err:
            raise UnreadablePictureError(f"{self.name} is packed in a way that cannot be read here: {err}") from err


def _is_picture(member: zipfile.ZipInfo) -> bool:
    path = Path(member.filename)
    # Files that macOS Finder adds have the names of the pictures they describe.
    hidden = path.name.startswith(".") or path.parts[:1] == ("__MACOSX",)
    return path.suffix.lower() in PICTURE_SUFFIXES and not member.is_dir() and not hidden


# What is refused


def _refuse_hostile(source: Source, members: tuple[zipfile.ZipInfo, ...]) -> None:
    """Raises `UnreadablePictureError` for an archive that no legitimate program has made, or that is encrypted."""
    if len(members) > _MAX_MEMBERS:
        raise UnreadablePictureError(f"{source.name} has {len(members)} members, more than the {_MAX_MEMBERS} allowed")
    seen: set[str] = set()
    for member in members:
        name = member.filename
        why = _why_not(member)
        if name in seen:
            why = "there are two of that name"
        if why is not None:
            raise UnreadablePictureError(f"{source.name} is refused for {shown(name)!r} in it: {why}")
        seen.add(name)
    spans = sorted((member.header_offset, member.header_offset + _LOCAL_BYTES + member.compress_size)
                   for member in members)  # fmt: skip
    if any(end > begin for (_, end), (begin, _) in itertools.pairwise(spans)):
        raise UnreadablePictureError(f"{source.name} is refused: its members overlap, as in a zip bomb")
    total = sum(member.file_size for member in members)
    if total > max(_MAX_TOTAL_BYTES, _MAX_RATIO * source.size):
        raise UnreadablePictureError(f"{source.name} is refused: its {source.size} bytes would become {total}")


def _why_not(member: zipfile.ZipInfo) -> str | None:
    if not member.filename:
        return "it has no name"
    parts = re.split(r"[/\\]", member.filename)
    if member.filename.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", member.filename):
        return "its name leads out of the archive"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "it is a link"
    if member.flag_bits & 1:
        return "it is encrypted; unpack it with its password first"
    if member.file_size > _DEFLATE * member.compress_size + 1024:
        return f"its {member.compress_size} bytes would become {member.file_size}, as in a zip bomb"
    if member.file_size > _MAX_MEMBER_BYTES and _is_picture(member):
        return "it is larger than 1 GB, the limit for one picture in an archive"
    return None


# What is written


class ArchiveBinder:
    """The same archive with larger pictures: its members in order, each with its name and a new extension.

    Pictures that are not among the pages `numbers` are kept unchanged with `keeps_others`, and left out otherwise.
    `state` is the number of members done; their headers are read again from the file that an interrupted run left.
    """

    def __init__(
        self,
        file: BinaryIO,
        options: WriteOptions,
        archive: Archive,
        numbers: tuple[int, ...],
        state: dict[str, Any],
        *,
        keeps_others: bool,
    ) -> None:
        self._keeps_others = keeps_others
        self._file, self._options, self._archive, self._numbers = file, options, archive, frozenset(numbers)
        done = state.get("members", 0)
        self._done = done if isinstance(done, int) and 0 <= done <= len(archive.members) else 0
        pages = state.get("pages", 0)
        self._pages = pages if isinstance(pages, int) else 0
        kept = _local_headers(file) if self._done else []
        file.seek(0, 2)
        self._zip = zipfile.ZipFile(file, "w")
        copied = [member for place, member in enumerate(archive.members[: self._done]) if self._goes_along(place)]
        for info, member in zip(kept, copied, strict=False):
            _take_directory(info, member)
            self._zip.filelist.append(info)
            self._zip.NameToInfo[info.filename] = info
        self._taken = {member.filename for member in archive.members}

    @property
    def pages(self) -> int:
        return self._pages

    @property
    def state(self) -> dict[str, Any]:
        return {"members": self._done, "pages": self._pages}

    def add(self, page: Page) -> Notes:
        while not self._is_wanted(self._done):
            self._pass_on()
        member = self._archive.members[self._done]
        stream = io.BytesIO()
        notes = encode(page.pixels, stream, page.output, page.metadata, self._options)
        info = _like(member, self._name(member.filename, page.output.format))
        info.compress_type = zipfile.ZIP_STORED
        self._zip.writestr(info, stream.getbuffer())
        self._done += 1
        self._pages += 1
        return notes

    def finish(self) -> Notes:
        while self._done < len(self._archive.members):
            self._pass_on()
        self._zip.comment = self._archive.comment
        self._zip.close()
        return ()

    def abandon(self) -> None:
        self._zip.fp = None  # otherwise it would write its directory when garbage-collected

    def _is_wanted(self, member: int) -> bool:
        return self._archive.number_of(member) in self._numbers

    def _goes_along(self, member: int) -> bool:
        return self._keeps_others or self._archive.number_of(member) is None or self._is_wanted(member)

    def _pass_on(self) -> None:
        """Copy a member that is not a page; pictures that were not requested are left out."""
        if self._goes_along(self._done):
            member = self._archive.members[self._done]
            info = _like(member, member.filename)
            info.file_size = member.file_size
            if member.is_dir():
                self._zip.writestr(info, b"")
            else:
                with self._zip.open(info, "w", force_zip64=member.file_size > 1 << 31) as file:
                    self._archive.copy(self._done, file)
        self._done += 1

    def _name(self, name: str, format: str) -> str:  # noqa: A002
        if format_of_suffix(Path(name).suffix) == format:
            return name
        ending = FORMATS[format].suffixes[0]
        stem = name[: len(name) - len(Path(name).suffix)]
        found = stem + ending if stem + ending not in self._taken else name + ending
        self._taken.add(found)
        return found


def _like(member: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, member.date_time)
    _take_directory(info, member)
    info.compress_type = zipfile.ZIP_STORED if member.compress_type == zipfile.ZIP_STORED else zipfile.ZIP_DEFLATED
    return info


def _take_directory(info: zipfile.ZipInfo, member: zipfile.ZipInfo) -> None:
    """Take the fields of a member that only the directory at the end of an archive contains."""
    info.external_attr, info.comment, info.create_system = member.external_attr, member.comment, member.create_system


def _local_headers(file: BinaryIO) -> list[zipfile.ZipInfo]:
    """The members of one of srgan's archives that has no directory yet (APPNOTE 6.3, section 4.3.7)."""
    found, at, end = [], 0, file.seek(0, 2)
    while at + _LOCAL_BYTES <= end:
        file.seek(at)
        head = file.read(_LOCAL_BYTES)
        sign, _, flags, method, time, date, crc, packed, size, name_bytes, extra_bytes = struct.unpack(
            "<4sHHHHHIIIHH", head
        )
        if sign != b"PK\3\4":
            break
        name = file.read(name_bytes).decode("utf-8" if flags & 0x800 else "cp437")
        extra = file.read(extra_bytes)
        if 0xFFFFFFFF in (packed, size) and extra[:2] == b"\1\0":
            size, packed = struct.unpack("<QQ", extra[4:20])
        when = ((date >> 9) + 1980, date >> 5 & 15, date & 31, time >> 11, time >> 5 & 63, (time & 31) * 2)
        info = zipfile.ZipInfo(name, when)
        info.flag_bits, info.compress_type, info.CRC = flags, method, crc
        info.compress_size, info.file_size, info.header_offset = packed, size, at
        found.append(info)
        at += _LOCAL_BYTES + name_bytes + extra_bytes + packed
    return found
