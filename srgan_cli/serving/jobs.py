"""Jobs: tasks that outlive the request that started them, until they are fetched, cancelled or removed."""

from __future__ import annotations

import asyncio
import time

from srgan_cli.serving.workshop import Task, Workshop

_SWEEP_S = 5.0


class Jobs:
    """Jobs by name; the names cannot be guessed."""

    def __init__(self, workshop: Workshop, keep_s: float) -> None:
        self._workshop, self._keep_s = workshop, keep_s
        self._tasks: dict[str, Task] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: Task) -> None:
        """Add a task as a job. Raises `FullError`."""
        self._workshop.put(task)
        self._tasks[task.id] = task

    def get(self, name: str) -> Task | None:
        """The job of that name. Each access extends its lifetime."""
        task = self._tasks.get(name)
        if task is not None:
            task.seen = time.monotonic()
        return task

    def forget(self, task: Task) -> None:
        """Stop it, and forget all of it."""
        self._workshop.cancel(task)
        self._tasks.pop(task.id, None)
        task.reservation.give()

    def make_room(self, count: int) -> None:
        """Forget results, oldest first, until `count` more bytes fit or none are left."""
        for task in list(self._tasks.values()):
            if task.reservation.fits(count):
                return
            if task.has_ended:
                self.forget(task)

    async def sweep(self) -> None:
        """Run for ever: forget jobs that have not been accessed for some time."""
        while True:
            await asyncio.sleep(min(_SWEEP_S, self._keep_s / 2))
            oldest = time.monotonic() - self._keep_s
            for task in [task for task in self._tasks.values() if task.seen < oldest]:
                self.forget(task)
