"""Classifies errors between this machine and a store: their description as the end of a sentence, and whether a retry
may help."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass

# Exceptions of the stores' own libraries, by name, since those are not imported here.
_NO_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound",
    "TokenRetrievalError", "DefaultCredentialsError", "RefreshError", "ClientAuthenticationError", "SSOTokenLoadError",
    "UnauthorizedSSOTokenError",
}  # fmt: skip
_LOST = {
    "EndpointConnectionError", "ConnectionClosedError", "ConnectTimeoutError", "ReadTimeoutError", "HTTPClientError",
    "ResponseStreamingError", "IncompleteReadError", "ProxyConnectionError", "FSTimeoutError",
    "ServerDisconnectedError", "ClientPayloadError", "ClientConnectorError", "ClientOSError", "ServerTimeoutError",
    "ContentLengthError",
    "ServiceRequestError", "ServiceResponseError", "TransportError",
}  # fmt: skip
_PASSING = {
    errno.EBUSY, errno.EIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE,
    errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EAGAIN, getattr(errno, "EREMOTEIO", errno.EIO),
}  # fmt: skip
_DENIED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403"}
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
_HINTS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; FSSPEC_S3_ANON=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login",
}


@dataclass(frozen=True)
class Trouble:
    """`why` ends a sentence. `passes`: a retry may help. `concerns_all`: all objects would fail the same way.
    `is_silent`: the store could not be reached, or did not answer. `is_given_up`: it was not asked (`reach`)."""

    why: str
    passes: bool = False
    concerns_all: bool = False
    is_silent: bool = False
    is_given_up: bool = False


class StoreError(OSError):
    """A store could not fulfil a request. `trouble` says why."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.why)
        self.trouble = trouble


def given_up(err: BaseException) -> str:
    """Why a picture was not tried, if its store has been given up (the same for all pictures); otherwise empty."""
    cause = err if isinstance(err, StoreError) else err.__cause__
    return cause.trouble.why if isinstance(cause, StoreError) and cause.trouble.is_given_up else ""


def trouble_of(err: BaseException, protocol: str) -> Trouble:
    """The meaning of an exception from fsspec, or the library below it, for the user."""
    name, status = type(err).__name__, _status(err)
    code = _code(err)
    said = _said(err)
    if name in _NO_CREDENTIALS:
        hint = _HINTS.get({"s3a": "s3", "gcs": "gs"}.get(protocol, protocol), "see fsspec's documentation")
        return Trouble(f"no credentials were found for {protocol}:// ({hint})", concerns_all=True)
    if isinstance(err, FileNotFoundError) and err.__cause__ is not None:  # fsspec's exception for any web server error
        return trouble_of(err.__cause__, protocol)
    if isinstance(err, FileNotFoundError) or status == 404 or code in ("NoSuchBucket", "NoSuchKey", "404"):
        return Trouble("there is no such object")
    if isinstance(err, PermissionError) or status in (401, 403) or code in _DENIED:
        return Trouble(f"access is denied{said}")
    if status is not None:
        return Trouble(
            f"the server answered with {status}{said}", passes=status in _PASSING_STATUS, is_silent=status >= 500
        )
    if isinstance(err, (TimeoutError, asyncio.TimeoutError)):
        return Trouble("the server did not answer in time", passes=True, is_silent=True)
    if name in _LOST or isinstance(err, ConnectionError):
        return Trouble(f"the connection fails{said}", passes=True, is_silent=True)
    if isinstance(err, OSError) and err.errno in (errno.ENOSPC, errno.EDQUOT):
        return Trouble("the disk is full; free some space, or set TMPDIR to a folder on another disk")
    if isinstance(err, OSError) and err.errno in _PASSING:
        return Trouble(f"the store reported an error{said}", passes=True, is_silent=True)
    return Trouble(f"the store refused it{said}" if said else f"the store failed with {name}")


def _code(err: BaseException) -> str:
    """S3's error code, if its library provides it."""
    response = getattr(err, "response", None)
    found = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return str(found)


def _status(err: BaseException) -> int | None:
    """HTTP status of a web server's response, if the exception has one."""
    for attribute in ("status", "status_code", "code"):
        value = getattr(err, attribute, None)
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return None


def _said(err: BaseException) -> str:
    """`": the library's own words"`, on one line, or empty."""
    text = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
    line = " ".join(text.split())[:200].rstrip(".")
    return f": {line}" if line else ""
