"""Settings of `srgan serve`, and the options that a request may have."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from srgan_cli.config import AUTO_MODEL, EngineOptions, UpscaleOptions
from srgan_cli.errors import SettingsError

_MIN_TOKEN = 16
_NAME = re.compile(r"(?!.*\.\.)[\w-][\w.-]{0,252}")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class ServeOptions:
    """Settings of one `srgan serve`: address, access, and limits.

    `queue` is the maximum number of pictures waiting or in progress; `held_bytes` the maximum memory for uploads,
    waiting pictures and results that have not been fetched. `client_timeout_s` is how long a client may neither send
    nor receive, `keep_s` the lifetime of a job that is not accessed. `allow_hosts` are additional names of the server,
    behind a proxy for example.
    """

    host: str = "127.0.0.1"
    port: int = 8780
    token: str | None = None
    allow_hosts: tuple[str, ...] = ()
    model: str = AUTO_MODEL
    engine: EngineOptions = field(default_factory=EngineOptions)
    queue: int = 32
    max_bytes: int = 100_000_000
    max_pixels: int = 40_000_000
    max_result_pixels: int = 400_000_000
    held_bytes: int = 2_000_000_000
    timeout_s: float = 600.0
    client_timeout_s: float = 20.0
    keep_s: float = 600.0

    def __post_init__(self) -> None:
        _check_host("--host", self.host)
        for name in self.allow_hosts:
            _check_host("--allow-host", name)
        if not 0 <= self.port <= 65_535:
            raise SettingsError(f"--port must be between 0 and 65535, not {self.port}")
        for name in (
            "queue",
            "max_bytes",
            "max_pixels",
            "max_result_pixels",
            "timeout_s",
            "client_timeout_s",
            "keep_s",
        ):
            if not 0 < getattr(self, name) < float("inf"):
                raise SettingsError(f"--{name.removesuffix('_s').replace('_', '-')} must be a number above 0")
        if self.engine.has_several_devices:
            raise SettingsError(
                f"--device {self.engine.device} names several devices, and a server makes one picture at a time; "
                "start a server for each, on ports of their own"
            )
        if self.held_bytes < self.max_bytes:
            raise SettingsError("--max-held must be at least --max-bytes")
        if self.token is not None and (len(self.token) < _MIN_TOKEN or not self.token.isascii()
                                       or not self.token.isprintable() or " " in self.token):  # fmt: skip
            raise SettingsError(
                f"--token must have at least {_MIN_TOKEN} letters, digits or signs, without spaces; one is made by "
                "python -c 'import secrets; print(secrets.token_urlsafe(24))'"
            )
        if self.token is None and not self.is_loopback:
            raise SettingsError(
                f"--host {self.host} can be reached by other machines, and without a token anybody could use this one: "
                "give --token (or SRGAN_SERVE_TOKEN in the environment), or stay on 127.0.0.1"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _check_host(option: str, name: str) -> None:
    if not name:
        raise SettingsError(f"{option} is empty (an unset variable?)")
    if _NAME.fullmatch(name) is None:
        try:
            ipaddress.ip_address(name)
        except ValueError as err:
            raise SettingsError(
                f"{option} expects a name or an address, without http:// and without a port (which is --port), "
                f"not {name!r}"
            ) from err


@dataclass(frozen=True)
class Parameter:
    """An option of a request: its name in a query or form, its JSON schema, and its description."""

    name: str
    schema: Mapping[str, object]
    description: str


@dataclass(frozen=True)
class Questions:
    """The options that a request may have, from the declarations of `srgan upscale`.

    `parse` turns names and values into options, or raises `SettingsError`.
    """

    parameters: tuple[Parameter, ...]
    parse: Parse


Parse: TypeAlias = Callable[[Mapping[str, str]], UpscaleOptions]
