"""Reading a request's picture and options, from a raw body or a form, with limits on size and time, in memory only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request

from srgan_cli.errors import shown
from srgan_cli.serving.answers import ProblemError
from srgan_cli.serving.jobs import Jobs
from srgan_cli.serving.room import FullError, Reservation
from srgan_cli.serving.settings import ServeOptions

_SLOWEST_BYTES_PER_S = 1_000  # for an upload as a whole, after the first `client_timeout_s`
_MAX_FIELDS = 64
_MAX_FIELD_BYTES = 4_096
_DRAINED_BYTES = 1 << 20


class Upload(NamedTuple):
    """The picture's bytes, the client's name for it, and the options."""

    data: bytes
    name: str
    words: dict[str, str]


@dataclass
class Reader:
    """Reads requests' bodies."""

    options: ServeOptions
    jobs: Jobs

    async def read(self, request: Request, reservation: Reservation) -> Upload:
        """Read a body. Raises `ProblemError` if it is too large, too slow, or not a picture and options."""
        kind, parameters = _content_type(request.headers.get("content-type", ""))
        words = _words(request.query_params.multi_items())
        if kind == "multipart/form-data":
            upload = await self._form(request, reservation, parameters.get("boundary", ""))
            twice = sorted(words.keys() & upload.words.keys())
            if twice:
                raise ProblemError(400, f"{twice[0]} is given twice, in the address and in the form")
            return upload._replace(words={**words, **upload.words})
        # Regardless of the content type: `curl --data-binary` declares a picture as a form.
        body = bytearray()
        async for chunk in self.chunks(request, reservation):
            body += chunk
        if not body:
            raise ProblemError(400, "the body is empty; send a picture as the body, or multipart/form-data with one")
        return Upload(bytes(body), _plain_name(words.pop("name", "")), words)

    async def _form(self, request: Request, reservation: Reservation, boundary: str) -> Upload:
        form = _Form(boundary)
        async for chunk in self.chunks(request, reservation):
            form.feed(chunk)
        return form.finish()

    async def chunks(self, request: Request, reservation: Reservation | None) -> AsyncIterator[bytes]:
        """The body in chunks as they arrive, within the limits of size and speed, with a `reservation` of memory for
        it."""
        options = self.options
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > options.max_bytes:
            raise _too_large(options)
        began, total = time.monotonic(), 0
        stream = aiter(request.stream())
        while True:
            allowed_s = options.client_timeout_s + total / _SLOWEST_BYTES_PER_S - (time.monotonic() - began)
            try:
                chunk = await asyncio.wait_for(anext(stream), min(options.client_timeout_s, allowed_s))
            except StopAsyncIteration:
                return
            except asyncio.TimeoutError as err:
                raise ProblemError(408, "the upload stopped, or is too slow; send it again", close=True) from err
            except ClientDisconnect as err:
                raise ProblemError(400, "the client disconnected in the middle of its upload", close=True) from err
            total += len(chunk)
            if total > options.max_bytes:
                raise _too_large(options)
            if reservation is not None:
                self._take(reservation, len(chunk))
            yield chunk

    def _take(self, reservation: Reservation, count: int) -> None:
        try:
            self.jobs.make_room(count)
            reservation.take(count)
        except FullError as err:
            raise ProblemError(429, "this server's memory for pictures is full; try again later", retry=True) from err


async def drain(request: Request) -> None:
    """Read a little of what a refused client is still sending: it may not read the response before it has sent
    everything."""

    async def read() -> None:
        left = _DRAINED_BYTES
        async for chunk in request.stream():
            left -= len(chunk)
            if left < 0:
                return

    try:
        await asyncio.wait_for(read(), 1.0)
    except (asyncio.TimeoutError, ClientDisconnect, RuntimeError):
        return


def _too_large(options: ServeOptions) -> ProblemError:
    return ProblemError(413, f"the upload is larger than the {options.max_bytes / 1e6:g} MB that this server takes")


def _content_type(text: str) -> tuple[str, dict[str, str]]:
    from python_multipart.multipart import parse_options_header

    kind, parameters = parse_options_header(text)
    return kind.decode("latin-1").lower(), {k.decode("latin-1"): v.decode("latin-1") for k, v in parameters.items()}


def _words(pairs: list[tuple[str, str]]) -> dict[str, str]:
    words: dict[str, str] = {}
    for name, value in pairs:
        key = name.replace("-", "_")
        if key in words:
            raise ProblemError(400, f"{shown(name)} is given twice")
        if len(words) >= _MAX_FIELDS or len(value) > _MAX_FIELD_BYTES:
            raise ProblemError(400, "there are too many options, or one is too long")
        words[key] = value
    return words


def _plain_name(name: str) -> str:
    """The last part of a client's file name, without characters that are special in a file system or a header."""
    last = PurePath(name.replace("\\", "/")).name
    kept = "".join(c if c.isalnum() or c in " ._-()[]+," else "_" for c in shown(last)[:120]).strip(" .")
    return kept or "picture"


class _Form:
    """A form parsed as it arrives: one picture and short fields. Nothing is written to disk."""

    def __init__(self, boundary: str) -> None:
        from python_multipart.multipart import MultipartParser

        if not boundary:
            raise ProblemError(400, "the form has no boundary")
        self._pairs: list[tuple[str, str]] = []
        self._picture: tuple[str, bytes] | None = None
        self._headers: dict[bytes, bytes] = {}
        self._part, self._field, self._value = bytearray(), bytearray(), bytearray()
        self._kind: Mapping[bytes, bytes] = {}
        self._ended = False
        self._parser = MultipartParser(
            boundary.encode("latin-1"),
            {
                "on_part_begin": self._begin,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._header,
                "on_headers_finished": self._headers_done,
                "on_end": self._all,
            },
        )

    def feed(self, chunk: bytes) -> None:
        from python_multipart.exceptions import FormParserError

        try:
            self._parser.write(chunk)
        except FormParserError as err:
            raise ProblemError(400, "the form cannot be read: it is not multipart/form-data") from err

    def finish(self) -> Upload:
        if not self._ended:
            raise ProblemError(400, "the form ends in the middle")
        if self._picture is None or not self._picture[1]:
            raise ProblemError(400, "the form has no picture: a part with a file name, such as -F picture=@in.jpg")
        name, data = self._picture
        return Upload(data, _plain_name(name), _words(self._pairs))

    def _begin(self) -> None:
        self._headers, self._part = {}, bytearray()

    def _header(self) -> None:
        if len(self._headers) > 16:
            raise ProblemError(400, "a part of the form has too many headers")
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field, self._value = bytearray(), bytearray()

    def _headers_done(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, self._kind = parse_options_header(self._headers.get(b"content-disposition", b""))
        if self._is_file and self._picture is not None:
            raise ProblemError(400, "the form has more than one picture; send each in a request of its own")
        if not self._is_file and len(self._pairs) >= _MAX_FIELDS:
            raise ProblemError(400, "the form has too many fields")

    @property
    def _is_file(self) -> bool:
        return b"filename" in self._kind

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._part += data[start:end]
        if not self._is_file and len(self._part) > _MAX_FIELD_BYTES:
            raise ProblemError(400, "a field of the form is too long; a picture needs a file name")

    def _end(self) -> None:
        if self._is_file:
            self._picture = unquote(self._kind[b"filename"].decode("utf-8", "replace")), bytes(self._part)
        else:
            name = self._kind.get(b"name", b"").decode("utf-8", "replace")
            self._pairs.append((name, self._part.decode("utf-8", "replace")))

    def _all(self) -> None:
        self._ended = True
