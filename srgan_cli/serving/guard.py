"""Access control for every route.

- **Host.** A malicious page can point its own name at 127.0.0.1 (DNS rebinding); the browser then sends that name,
  which is refused. With a token this is not needed, since the cookie is bound to the server's name.
- **Origin.** A malicious page can send a form to 127.0.0.1 (CSRF); the browser sends the page's origin, which is
  checked.
- **Token.** As `Authorization: Bearer …`, or as a cookie that the page's own form sets; compared in constant time.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from srgan_cli.serving.answers import ProblemError
from srgan_cli.serving.settings import LOOPBACK_NAMES, ServeOptions

COOKIE = "srgan_token"
OPEN_PATHS = frozenset({"/healthz", "/login", "/page.css"})  # available without a token
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "SAMEORIGIN",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, options: ServeOptions, on_refusal: Callable[[str, int], None]) -> None:
        """`on_refusal` is called with the method and the status of each refused request."""
        self._app, self._options, self._on_refusal = app, options, on_refusal
        names = LOOPBACK_NAMES if options.is_loopback else ()
        self._hosts = {name.casefold() for name in (*names, options.host, *options.allow_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        problem = self._refusal(scope, Headers(scope=scope))
        if problem is None:
            await self._app(scope, receive, guarded)
            return
        self._on_refusal(scope["method"], problem.status)
        if problem.status == 401 and scope["path"] == "/" and scope["method"] == "GET":
            from starlette.responses import RedirectResponse

            await RedirectResponse("/login", 303)(scope, receive, guarded)
        else:
            headers = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else {}
            await problem.response(1, headers)(scope, receive, guarded)

    def _refusal(self, scope: Scope, headers: Headers) -> ProblemError | None:
        host = headers.get("host", "")
        if self._checks_host and _name(host) not in self._hosts:
            return ProblemError(
                421, "this server is not known by that name; use 127.0.0.1 or localhost, or start it with "
                "--allow-host NAME", close=True,
            )  # fmt: skip
        if not _is_own(headers, host, is_page=scope["method"] == "GET" and scope["path"] in ("/", "/login")):
            return ProblemError(
                403,
                "this request comes from a page of another site, and this server answers only its own page",
                close=True,
            )
        if scope["path"] in OPEN_PATHS or self._has_token(headers):
            return None
        return ProblemError(401, "give the token that the server was started with, as Authorization: Bearer TOKEN")

    @property
    def _checks_host(self) -> bool:
        return self._options.token is None or bool(self._options.allow_hosts)

    def _has_token(self, headers: Headers) -> bool:
        if self._options.token is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return is_token(self._options, given.strip())


def is_token(options: ServeOptions, given: str) -> bool:
    """Compared in constant time."""
    return options.token is None or hmac.compare_digest(given.encode(), options.token.encode())


def _name(host: str) -> str:
    """`[::1]:8780` -> `::1`."""
    try:
        return (urlsplit(f"//{host}").hostname or "").casefold()
    except ValueError:
        return ""


def _is_own(headers: Headers, host: str, *, is_page: bool) -> bool:
    """Whether a request comes from one of the server's own pages, or not from a page at all."""
    origin = headers.get("origin")
    if origin is not None:
        try:
            return origin != "null" and urlsplit(origin).netloc.casefold() == host.casefold()
        except ValueError:  # not an address
            return False
    # Browsers omit Origin when a page is opened or embedded, and send this header instead.
    return is_page or headers.get("sec-fetch-site", "none") in ("none", "same-origin")
