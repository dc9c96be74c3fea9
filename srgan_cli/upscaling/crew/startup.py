"""Starts the workers of a run while it is planned, so that they are ready when the plan is."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srgan_cli.upscaling.crew.messages import Crew

# Refusals (a misspelt name, nothing to do) come sooner than this, and so do not wait for an import.
_GRACE_SECONDS = 0.05
_POLL_SECONDS = 0.5
_END_SECONDS = 10.0


class WorkerStartup:
    """Starts a crew in a thread that lives as long as the crew: on Linux, processes started by Ray end with the thread
    that started them. Before `begin`, it only imports `module`."""

    def __init__(self, start: Callable[[], Crew], module: str | None = None) -> None:
        self._start, self._module = start, module
        self._begun, self._known = threading.Event(), threading.Event()
        self._closed, self._ended = threading.Event(), threading.Event()
        self._crew: Crew | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="srgan-startup", daemon=True).start()

    def begin(self) -> None:
        """There is work, so start the crew. Returns immediately."""
        self._begun.set()

    def crew(self) -> Crew:
        """The crew, which the caller must close. Raises what starting it raised."""
        self.begin()
        while not self._known.wait(_POLL_SECONDS):  # in short waits, so that Ctrl-C works everywhere
            pass
        if self._error is not None:
            raise self._error
        assert self._crew is not None
        crew, self._crew = self._crew, None
        return crew

    def close(self) -> None:
        """There is no more work: a crew that was not requested is ended."""
        self._closed.set()
        self._begun.set()
        self._ended.wait(_END_SECONDS)

    def _run(self) -> None:
        self._import()
        self._begun.wait()
        if not self._closed.is_set():
            try:
                self._crew = self._start()
            except BaseException as err:  # noqa: BLE001 - raised again where the crew is asked for
                self._error = err
            self._known.set()
            self._closed.wait()
        if self._crew is not None:
            self._crew.close()
        self._ended.set()

    def _import(self) -> None:
        if self._module is not None and not self._begun.wait(_GRACE_SECONDS):
            with contextlib.suppress(Exception):  # the caller gets the same error and can report it
                importlib.import_module(self._module)
