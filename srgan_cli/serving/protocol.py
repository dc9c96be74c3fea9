"""HTTP/1.1 with time limits for clients that may stall: a subclass of uvicorn's protocol.

uvicorn waits indefinitely for the rest of a request's head, and for a client that does not read its response. Each of
these holds a connection, and there are only a few hundred.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class PatientProtocol(H11Protocol):
    """Gives a client `timeout_s` for a request's head, and for each part of the response that it does not read."""

    timeout_s = 20.0
    _head: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head = self.loop.call_later(self.timeout_s, self._give_up)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering:
            self._head = _stop(self._head)
        elif self._head is None:  # a second request on the same connection has begun
            self._head = self.loop.call_later(self.timeout_s, self._give_up)

    def on_response_complete(self) -> None:
        self._head = _stop(self._head)
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        _stop(self._stalled)
        self._stalled = self.loop.call_later(self.timeout_s, self._give_up)

    def resume_writing(self) -> None:
        self._stalled = _stop(self._stalled)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head, self._stalled = _stop(self._head), _stop(self._stalled)
        super().connection_lost(exc)

    def _give_up(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.abort()


def _stop(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel the timer."""
    if timer is not None:
        timer.cancel()
    return None


def patient_protocol(timeout_s: float) -> type[PatientProtocol]:
    """A subclass with the server's own timeout, since uvicorn creates the instances itself."""
    return type("Protocol", (PatientProtocol,), {"timeout_s": timeout_s})
