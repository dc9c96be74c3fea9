"""Responses to clients: problems as in RFC 9457, and files."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote

from starlette.responses import JSONResponse

from srgan_cli.errors import (
    DefectError,
    DeviceError,
    PictureError,
    PictureTimeoutError,
    SettingsError,
    SrganError,
    UnreadablePictureError,
    UnwritablePictureError,
    WeightsError,
    in_python,
    shown,
)
from srgan_cli.serving.making import TooLargeError

# The HTTP status for each error of the library; the first match counts.
_STATUSES: tuple[tuple[type[SrganError], int], ...] = (
    (TooLargeError, 413),
    (UnreadablePictureError, 422),
    (PictureTimeoutError, 504),
    (DefectError, 500),
    (UnwritablePictureError, 422),
    (PictureError, 503),  # not enough memory for it
    (SettingsError, 400),
    (WeightsError, 400),
    (DeviceError, 503),
)


class ProblemError(Exception):
    """A response without a picture. `detail` is a sentence: what is wrong, and what to do."""

    def __init__(self, status: int, detail: str, *, retry: bool = False, close: bool = False) -> None:
        super().__init__(detail)
        self.status, self.detail, self.retry, self.close = status, detail, retry, close

    def as_dict(self) -> dict[str, object]:
        return {"title": HTTPStatus(self.status).phrase, "status": self.status, "detail": self.detail}

    def response(self, retry_after_s: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
        more = {"Retry-After": str(retry_after_s)} if self.retry else {}
        if self.close:
            more["Connection"] = "close"
        return JSONResponse(
            self.as_dict(), self.status, {**(headers or {}), **more}, media_type="application/problem+json"
        )


def problem_of(err: BaseException) -> ProblemError:
    """The response for an error. Details of an unexpected error are not shown."""
    for kind, status in _STATUSES:
        if isinstance(err, kind):
            sentence = shown(in_python(err.sentence)).removeprefix("-: ")  # the name used for a picture without one
            return ProblemError(status, sentence, retry=status in (503, 504))
    return ProblemError(500, "an error occurred on the server with this picture; see its log")


def disposition(name: str, *, inline: bool = True) -> str:
    """A Content-Disposition for any file name (RFC 6266)."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in name)
    return f"{'inline' if inline else 'attachment'}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
