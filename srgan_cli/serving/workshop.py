"""The queue: one thread enlarges the pictures of all clients in sequence, since one picture uses the whole machine.

Only the event loop's thread changes a task; the worker posts changes to it. So code that awaits a task sees a
consistent state.
"""

from __future__ import annotations

import asyncio
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from srgan_cli.config import UpscaleOptions
from srgan_cli.serving.making import CancelledError, Result
from srgan_cli.serving.room import FullError, Reservation

JobState: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled"]
Making: TypeAlias = "Callable[[Task, Callable[[float], None]], Result]"
ENDED: tuple[JobState, ...] = ("done", "failed", "cancelled")
_TELL_EVERY_S = 0.05  # minimum interval of progress reports; for small pictures they would be too frequent
_RECENT = 20  # number of tasks for the running average of their duration


@dataclass(eq=False)
class Task:
    """One picture in the queue or in progress. `data` is the upload; it is kept until the task is forgotten, for the
    comparison page."""

    data: bytes
    options: UpscaleOptions
    name: str
    reservation: Reservation  # its part of the memory for pictures
    id: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    state: JobState = "queued"
    fraction: float = 0.0
    result: Result | None = None
    error: BaseException | None = None
    arrived: float = field(default_factory=time.monotonic)
    began: float | None = None
    seen: float = field(default_factory=time.monotonic)
    cancelled: threading.Event = field(default_factory=threading.Event)
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    async def changed(self) -> None:
        """Wait until anything changes."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    async def ended(self) -> None:
        while not self.has_ended:
            await self.changed()

    def update(self, **news: Any) -> None:
        for name, value in news.items():
            setattr(self, name, value)
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)


class Workshop:
    """The queue and its worker, which calls `warm_up` before its first task. Create it inside a running event loop."""

    def __init__(self, most: int, making: Making, warm_up: Callable[[], None]) -> None:
        self._most, self._making, self._warm_up = most, making, warm_up
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._inside: dict[str, Task] = {}  # waiting or in progress, in order
        self._seconds: deque[float] = deque(maxlen=_RECENT)
        self._worker = threading.Thread(target=self._work, name="srgan-worker", daemon=True)
        self._worker.start()

    @property
    def length(self) -> int:
        """Number of pictures waiting or in progress."""
        return len(self._inside)

    @property
    def is_full(self) -> bool:
        return self.length >= self._most

    def retry_after_s(self) -> int:
        """Suggested delay before a client tries again."""
        each = sum(self._seconds) / len(self._seconds) if self._seconds else 1.0
        return max(1, min(60, round(each)))

    def position(self, task: Task) -> int:
        """Number of tasks ahead of it."""
        return list(self._inside).index(task.id) if task.id in self._inside else 0

    def put(self, task: Task) -> None:
        """Add a task. Raises `FullError`."""
        if self.is_full:
            raise FullError
        self._inside[task.id] = task
        self._queue.put(task)

    def cancel(self, task: Task) -> None:
        """Remove it from the queue, or stop it after the current band."""
        task.cancelled.set()
        if task.state == "queued":
            self._leave(task, state="cancelled")

    async def close(self) -> None:
        """Stop all work, and the thread."""
        for task in list(self._inside.values()):
            self.cancel(task)
        self._queue.put(None)
        while self._worker.is_alive():
            await asyncio.sleep(0.02)

    def _leave(self, task: Task, **news: Any) -> None:
        if self._inside.pop(task.id, None) is None:
            return
        if task.began is not None:
            self._seconds.append(time.monotonic() - task.began)
        task.update(**news)

    def _begin(self, task: Task) -> None:
        if not task.has_ended:  # it may have been cancelled since the worker took it
            task.update(state="running", began=time.monotonic())

    def _done(self, task: Task, result: Result) -> None:
        if task.cancelled.is_set():  # its memory has been given back already
            self._leave(task, state="cancelled")
            return
        task.reservation.add(len(result.data))
        self._leave(task, state="done", result=result, fraction=1.0)

    def _post(self, call: Callable[..., None], *args: object, **news: Any) -> None:
        def run() -> None:
            call(*args, **news)

        try:
            self._loop.call_soon_threadsafe(run)
        except RuntimeError:  # the loop is closed: nobody listens
            task = args[0] if args else None
            if isinstance(task, Task):
                task.cancelled.set()

    def _work(self) -> None:
        self._warm_up()
        while (task := self._queue.get()) is not None:
            if task.cancelled.is_set():
                continue
            self._post(self._begin, task)
            try:
                result = self._making(task, self._progress(task))
            except CancelledError:
                self._post(self._leave, task, state="cancelled")
            except BaseException as err:  # noqa: BLE001 - it is this task's, and the next one has its turn
                self._post(self._leave, task, state="failed", error=err)
            else:
                self._post(self._done, task, result)

    def _progress(self, task: Task) -> Callable[[float], None]:
        last = 0.0

        def report(fraction: float) -> None:
            nonlocal last
            if task.cancelled.is_set():
                raise CancelledError
            now = time.monotonic()
            if now - last >= _TELL_EVERY_S:
                last = now
                self._post(task.update, fraction=fraction)

        return report
