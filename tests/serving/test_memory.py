"""What a client reserves of the memory for pictures is given back, whenever it disconnects or cancels."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from srgan_cli.config import UpscaleOptions
from srgan_cli.serving.app import FileResponse
from srgan_cli.serving.jobs import Jobs
from srgan_cli.serving.making import Result
from srgan_cli.serving.room import Room
from srgan_cli.serving.workshop import Task, Workshop

RESULT = Result(bytes(1000), "png", 1, 1, "m", "", (), 1.0)


def test_a_job_that_is_deleted_when_it_is_almost_done_holds_nothing() -> None:
    async def run() -> None:
        reached, opened = threading.Event(), threading.Event()

        def making(_task: Task, _progress: Callable[[float], None]) -> Result:
            reached.set()
            opened.wait(60)
            return RESULT  # after its last report of progress, which would have ended it

        room = Room(1 << 20)
        workshop = Workshop(4, making, lambda: None)
        jobs = Jobs(workshop, 60.0)
        task = Task(b"", UpscaleOptions(), "a", room.reserve())
        task.reservation.take(100)
        jobs.add(task)
        await asyncio.to_thread(reached.wait, 60)
        jobs.forget(task)
        opened.set()
        await asyncio.wait_for(task.ended(), 60)
        assert (task.state, room.taken, workshop.length) == ("cancelled", 0, 0)
        await workshop.close()

    asyncio.run(run())


def test_a_task_that_is_cancelled_as_the_worker_takes_it_has_ended() -> None:
    async def run() -> None:
        taken = threading.Event()

        def making(_task: Task, progress: Callable[[float], None]) -> Result:
            taken.set()
            while True:
                progress(0.5)

        workshop = Workshop(4, making, lambda: None)
        task = Task(b"", UpscaleOptions(), "a", Room(1).reserve())
        workshop.put(task)
        taken.wait(60)  # the loop's thread waits: what the worker has posted comes after the cancellation
        workshop.cancel(task)
        await asyncio.wait_for(task.ended(), 60)
        await asyncio.sleep(0.05)
        assert task.state == "cancelled"
        await workshop.close()

    asyncio.run(run())


def test_a_file_for_a_client_that_has_disconnected_is_released() -> None:
    async def chunks() -> AsyncIterator[memoryview]:
        yield memoryview(b"a")

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        await asyncio.sleep(0.01)

    released: list[bool] = []
    for version in ("2.3", "2.4"):  # Starlette waits for a disconnection in another way from 2.4 on
        response = FileResponse(chunks(), {}, "image/png", lambda: released.append(True))
        asyncio.run(response({"type": "http", "asgi": {"spec_version": version}}, receive, send))
    assert released == [True, True]
