"""Runs the application: one process, with the event loop in the caller's thread and the network in another."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from srgan_cli.engine.held import Upscalers
from srgan_cli.errors import SettingsError
from srgan_cli.extras import how_to_install
from srgan_cli.serving.making import check_model
from srgan_cli.serving.settings import Questions, ServeOptions

if TYPE_CHECKING:
    import uvicorn

_CONNECTIONS = 1_000  # above this, uvicorn answers 503
_GRACE_S = 5  # grace period for requests in progress when the server stops


@dataclass(frozen=True)
class Listeners:
    """Callbacks for events: each request (method, route, status, seconds), and defects in srgan."""

    on_request: Callable[[str, str, int, float], None] = lambda *_: None
    on_fault: Callable[[BaseException], None] = lambda _err: None


class HttpServer:
    """A server that listens as soon as it is created. `address` is its page's.

    Raises `SettingsError` if it cannot listen or a package is missing, and `WeightsError` for a missing model.
    """

    def __init__(
        self,
        options: ServeOptions,
        questions: Questions,
        listeners: Listeners | None = None,
        upscalers: Upscalers | None = None,
    ) -> None:
        self._server = _uvicorn(options, questions, listeners or Listeners(), upscalers or Upscalers())
        self._socket = _listen(options)
        host, port = self._socket.getsockname()[:2]
        self.address = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def run(self) -> None:
        """Serve until SIGINT, SIGTERM or `stop`."""
        with self._socket:
            asyncio.run(self._server.serve(sockets=[self._socket]))

    def stop(self) -> None:
        """Stop, from another thread."""
        self._server.should_exit = True


def _uvicorn(options: ServeOptions, questions: Questions, listeners: Listeners, upscalers: Upscalers) -> uvicorn.Server:
    try:
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as err:
        raise SettingsError(
            f"srgan serve needs starlette, uvicorn and python-multipart: {how_to_install('serve')}"
        ) from err
    from srgan_cli.serving.app import build
    from srgan_cli.serving.protocol import patient_protocol

    check_model(options)
    app = build(options, questions, upscalers, listeners.on_request, listeners.on_fault)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # a client's malformed request is not worth logging
    config = uvicorn.Config(
        app, loop="asyncio", http=patient_protocol(options.client_timeout_s), ws="none", lifespan="on",
        access_log=False, log_config=None, server_header=False, proxy_headers=False, limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_S,
    )  # fmt: skip
    return uvicorn.Server(config)


def _listen(options: ServeOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # The socket's protocol is given explicitly: asyncio checks it before it disables Nagle's algorithm, which would
    # delay the body of each response by 40 ms, until the client has acknowledged its head.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((options.host, options.port))
        listening.listen(512)  # clients that connect while packages are loading wait, instead of being refused
    except OSError as err:
        listening.close()
        is_elsewhere = isinstance(err, socket.gaierror) or err.errno == errno.EADDRNOTAVAIL
        advice = (
            "give an address of this machine with --host (0.0.0.0: all of them)"
            if is_elsewhere
            else "give another --port (0 takes any that is free)"
        )
        raise SettingsError(
            f"cannot listen on --host {options.host} --port {options.port}: {(err.strerror or str(err)).lower()}; "
            f"{advice}"
        ) from err
    except (UnicodeError, TypeError) as err:  # a part of it is too long, for example
        listening.close()
        raise SettingsError(f"--host {options.host} is not a possible name of a machine") from err
    return listening
