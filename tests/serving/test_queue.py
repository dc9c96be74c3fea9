"""The queue, jobs, and clients that disconnect, hang or arrive all at once."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from srgan_cli.config import EngineOptions, UpscaleOptions
from srgan_cli.errors import DeviceError, WeightsError
from srgan_cli.serving import app
from srgan_cli.serving import server as server_module
from srgan_cli.serving.making import make
from srgan_cli.serving.room import Room
from srgan_cli.serving.server import HttpServer
from srgan_cli.serving.settings import ServeOptions
from srgan_cli.serving.workshop import Task
from tests.serving.conftest import Gate
from tests.serving.servers import ask, connect, gauge, get, png, post, running, until


def head(server: HttpServer, length: int) -> bytes:
    return f"POST /v1/upscale HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n".encode()


# ------------------------------------------------------------------------------------------------------------- jobs


def test_a_job_from_its_beginning_to_its_end(server: HttpServer) -> None:
    created = post(server, "/v1/jobs?scale=2&name=cat.png", png())
    assert created.status == 202
    path = created.headers["Location"]
    events = get(server, f"{path}/events")
    assert events.headers["Content-Type"].startswith("text/event-stream")
    states = [json.loads(line[6:]) for line in events.body.decode().splitlines() if line.startswith("data: ")]
    last = states[-1]
    assert last["state"] == "done"
    assert [one["fraction"] for one in states] == sorted(one["fraction"] for one in states)
    assert (last["result"]["name"], last["result"]["width"]) == ("cat_x2.png", 24)
    result = get(server, last["links"]["result"])
    assert result.size == (24, 18)
    assert len(result.body) == last["result"]["bytes"]
    page = get(server, last["links"]["compare"])
    assert page.status == 200
    assert b'id="divider"' in page.body
    assert "sandbox allow-scripts" in page.headers["Content-Security-Policy"]
    assert gauge(server, "srgan_held_bytes") > 0
    assert ask(server, "DELETE", path).status == 204
    assert get(server, path).status == 404
    assert gauge(server, "srgan_held_bytes") == 0


def test_a_result_too_large_for_a_page_has_no_link_to_one(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_PREVIEW_PIXELS", 24 * 18 - 1)
    path = post(server, "/v1/jobs?scale=2", png()).headers["Location"]
    until(lambda: get(server, path).json["state"] == "done")
    assert get(server, path).json["links"].keys() == {"self", "events", "result"}
    assert get(server, f"{path}/compare").status == 413
    ask(server, "DELETE", path)


def test_a_job_that_fails_says_why(server: HttpServer) -> None:
    path = post(server, "/v1/jobs", b"no picture").headers["Location"]
    until(lambda: get(server, path).json["state"] == "failed")
    assert get(server, path).json["problem"]["status"] == 422
    assert get(server, f"{path}/result").status == 422
    assert get(server, f"{path}/compare").status == 409
    ask(server, "DELETE", path)


def test_jobs_have_a_place_in_the_queue_and_can_be_ended(server: HttpServer, gate: Gate) -> None:
    paths = [post(server, "/v1/jobs", png()).headers["Location"] for _ in range(3)]
    assert gate.reached.acquire(timeout=60)
    until(lambda: get(server, paths[0]).json["fraction"] == 0.5)
    assert [get(server, path).json["position"] for path in paths] == [0, 1, 2]
    assert get(server, f"{paths[0]}/result").status == 409
    assert ask(server, "DELETE", paths[1]).status == 204
    assert get(server, paths[2]).json["position"] == 1
    assert ask(server, "DELETE", paths[0]).status == 204
    until(lambda: [type(err).__name__ for err in gate.ended] == ["CancelledError"])
    gate.opened.set()
    until(lambda: get(server, paths[2]).json["state"] == "done")
    ask(server, "DELETE", paths[2])


def test_jobs_that_no_client_requests_are_deleted(options: ServeOptions, gate: Gate) -> None:
    with running(replace(options, keep_s=0.2)) as server:
        path = post(server, "/v1/jobs", png()).headers["Location"]
        until(lambda: bool(gate.ended), 20)
        assert get(server, path).status == 404
        assert gauge(server, "srgan_held_bytes") == 0


def test_a_job_that_is_watched_is_kept(options: ServeOptions, gate: Gate) -> None:
    """Also if it reports its progress so often that there is never a pause."""
    with running(replace(options, keep_s=0.4)) as server, ThreadPoolExecutor(1) as pool:
        path = post(server, "/v1/jobs", png()).headers["Location"]
        watching = pool.submit(get, server, f"{path}/events")
        time.sleep(1.5)
        gate.opened.set()
        states = [json.loads(line[6:])["state"] for line in watching.result(30).body.decode().splitlines()
                  if line.startswith("data: ")]  # fmt: skip
        assert states[-1] == "done"


def test_a_job_that_ends_while_an_event_is_sent_is_told_as_ended() -> None:
    class Jobs:
        def get(self, name: str) -> None: ...

    async def follow() -> list[str]:
        task = Task(b"", UpscaleOptions(), "a.png", Room(0).reserve(), state="running")
        service: Any = SimpleNamespace(
            _known=lambda _: task, _shown=lambda task: {"state": task.state}, jobs=Jobs(), options=ServeOptions()
        )
        response = await app.Service.events(service, cast(Any, None))
        said = []
        async for chunk in response.body_iterator:  # type: ignore[attr-defined]
            said.append(chunk)
            task.update(state="done")
        return said

    assert ["running" in (said := asyncio.run(follow()))[0], "done" in said[-1], len(said)] == [True, True, 2]


def test_a_silent_job_is_told_again_and_kept(options: ServeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a model is loaded, for example: the page takes silence for a dead server."""
    opened = threading.Event()

    def slow(*_: Any, **__: Any) -> Any:
        opened.wait(30)
        raise DeviceError("enough")

    monkeypatch.setattr(app, "make", slow)
    with running(replace(options, keep_s=0.4)) as server, ThreadPoolExecutor(1) as pool:
        path = post(server, "/v1/jobs", png()).headers["Location"]
        watching = pool.submit(get, server, f"{path}/events")
        time.sleep(1.5)
        assert get(server, path).json["state"] == "running"
        opened.set()
        states = [json.loads(line[6:])["state"] for line in watching.result(30).body.decode().splitlines()
                  if line.startswith("data: ")]  # fmt: skip
        assert states.count("running") > 3
        assert states[-1] == "failed"


def test_the_oldest_results_make_room(options: ServeOptions) -> None:
    with running(replace(options, max_bytes=3_000, held_bytes=9_000)) as server:
        paths = []
        for _ in range(6):
            created = post(server, "/v1/jobs", png(24, 24))
            assert created.status == 202, created.body
            paths.append(created.headers["Location"])
            until(lambda path=paths[-1]: get(server, path).json["state"] == "done")  # type: ignore[misc]
        statuses = [get(server, path).status for path in paths]
        assert statuses[-1] == 200
        assert statuses[0] == 404


# ------------------------------------------------------------------------------------------------------- many, and slow


def test_a_second_answer_on_a_connection_waits_for_no_acknowledgement(server: HttpServer) -> None:
    """Nagle's algorithm and the delayed acknowledgement of the other side come to 40 ms."""
    connection = http.client.HTTPConnection(urlsplit(server.address).netloc, timeout=30)
    seconds = []
    for _ in range(20):
        began = time.monotonic()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        seconds.append(time.monotonic() - began)
    connection.close()
    assert min(seconds) < 0.03


def test_beyond_the_queue_there_is_429(options: ServeOptions, gate: Gate) -> None:
    with running(replace(options, queue=2)) as server, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(post, server, "/v1/upscale", png()) for _ in range(2)]
        until(lambda: gauge(server, "srgan_queue_length") == 2)
        answer = post(server, "/v1/upscale", png())
        assert answer.status == 429
        assert int(answer.headers["Retry-After"]) >= 1
        assert post(server, "/v1/jobs", png()).status == 429
        gate.opened.set()
        assert [one.result(30).status for one in waiting] == [200, 200]
        assert post(server, "/v1/upscale", png()).status == 200


def test_200_requests_at_once(options: ServeOptions) -> None:
    """Each is answered: with its own picture, or that it should come again."""
    with running(replace(options, queue=40)) as server, ThreadPoolExecutor(200) as pool:

        def one(number: int) -> int:
            answer = post(server, "/v1/upscale?scale=2&format=png", png(8 + number % 16, 9))
            if answer.status == 200:
                assert answer.size == (2 * (8 + number % 16), 18)
            return answer.status

        statuses = Counter(pool.map(one, range(200)))
        assert statuses.keys() <= {200, 429}
        assert statuses[200] >= 40
        assert gauge(server, "srgan_held_bytes") == 0
        assert gauge(server, "srgan_queue_length") == 0


def test_the_work_ends_when_the_client_leaves(server: HttpServer, gate: Gate) -> None:
    body = png()
    connection = connect(server, head(server, len(body)) + body)
    assert gate.reached.acquire(timeout=60)
    connection.close()
    until(lambda: [type(err).__name__ for err in gate.ended] == ["CancelledError"])
    until(lambda: gauge(server, "srgan_held_bytes") == 0)


def test_a_client_that_leaves_the_queue(server: HttpServer, gate: Gate) -> None:
    body = png()
    connections = [connect(server, head(server, len(body)) + body) for _ in range(3)]
    until(lambda: gauge(server, "srgan_queue_length") == 3)
    for connection in connections[1:]:
        connection.close()
    until(lambda: gauge(server, "srgan_queue_length") == 1)
    gate.opened.set()
    assert connections[0].recv(15) == b"HTTP/1.1 200 OK"
    connections[0].close()


@pytest.fixture(scope="module")
def impatient(options: ServeOptions):  # type: ignore[no-untyped-def]
    with running(replace(options, client_timeout_s=0.5)) as started:
        yield started


def _closed(connection: socket.socket) -> bool:
    """Whether the other side ends it soon, and is not waiting for us."""
    connection.settimeout(10)
    with connection, contextlib.suppress(ConnectionError):
        try:
            while connection.recv(1 << 16):
                pass
        except TimeoutError:
            return False
    return True


@pytest.mark.slow
def test_slow_loris(impatient: HttpServer) -> None:
    """Headers and bodies that arrive byte by byte, or never, delay no other request and time out."""
    beginnings = [b"", b"POST /v1/upscale HT", head(impatient, 1000), head(impatient, 1000) + b"\x89PNG"]
    connections = [connect(impatient, beginnings[i % 4]) for i in range(100)]
    assert post(impatient, "/v1/upscale", png()).status == 200
    assert all(_closed(connection) for connection in connections)
    began = time.monotonic()
    with connect(impatient, b"") as dripping, pytest.raises(OSError):  # noqa: PT012
        for byte in head(impatient, 1000) * 100:
            dripping.sendall(bytes([byte]))
            time.sleep(0.02)
    assert time.monotonic() - began < 10
    assert gauge(impatient, "srgan_held_bytes") == 0


def test_an_upload_that_stops(impatient: HttpServer) -> None:
    answer = b""
    with connect(impatient, head(impatient, 1000) + bytes(100)) as connection:
        while chunk := connection.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 408")


def test_a_client_that_does_not_take_its_answer(impatient: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def large(*args: object, **limits: object):  # type: ignore[no-untyped-def]
        return replace(make(*args, **limits), data=bytes(50_000_000))  # type: ignore[arg-type]

    monkeypatch.setattr(app, "make", large)
    body = png()
    connection = connect(impatient, head(impatient, len(body)) + body)
    until(lambda: gauge(impatient, "srgan_held_bytes") > 1_000_000)
    until(lambda: gauge(impatient, "srgan_held_bytes") == 0)
    connection.close()


def test_a_picture_that_takes_too_long(options: ServeOptions) -> None:
    with running(replace(options, timeout_s=1e-9)) as server:
        answer = post(server, "/v1/upscale", png(64, 64))
        assert answer.status == 504
        assert "longer than" in answer.detail


def test_a_fault_of_ours_is_500_and_reported(options: ServeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_args: object, **_limits: object) -> None:
        raise KeyError("a secret path")

    faults: list[BaseException] = []
    with running(options, on_fault=faults.append) as server:
        monkeypatch.setattr(app, "make", faulty)
        answer = post(server, "/v1/upscale", png())
        assert (answer.status, "secret" in answer.detail) == (500, False)
        assert isinstance(faults[0], KeyError)
        monkeypatch.undo()
        assert post(server, "/v1/upscale", png()).status == 200


def test_a_model_that_cannot_be_loaded_is_reported_at_the_start(options: ServeOptions) -> None:
    faults: list[BaseException] = []
    with running(replace(options, engine=EngineOptions("cuda:99")), on_fault=faults.append):
        until(lambda: bool(faults))
    assert isinstance(faults[0], DeviceError)


def test_what_is_no_model_ends_the_server_at_once(options: ServeOptions, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("text", encoding="utf-8")
    with (
        pytest.raises(WeightsError, match=r"notes\.txt is not a model"),
        running(replace(options, model=str(tmp_path / "notes.txt"))),
    ):
        pass


def test_nothing_is_written(server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert post(server, "/v1/upscale?format=tiff", png(64, 64)).status == 200
    assert post(server, "/v1/upscale", b"\x89PNG broken").status == 422
    assert list(tmp_path.rglob("*")) == []


def test_a_client_that_waits_is_told_that_the_server_stops(
    options: ServeOptions, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose picture is being made, one in the queue, and one that is still sending its picture."""
    monkeypatch.setattr(server_module, "_GRACE_S", 1)
    with ThreadPoolExecutor(2) as pool:
        with running(options) as server:
            waiting = [pool.submit(post, server, "/v1/upscale", png()) for _ in range(2)]
            assert gate.reached.acquire(timeout=60)
            until(lambda: gauge(server, "srgan_queue_length") == 2)
            sending = connect(server, head(server, 1000) + b"the begin")
        answers = [one.result(60) for one in waiting]
        sent = sending.recv(4096)
        sending.close()
    assert [(one.status, one.detail) for one in answers] == [
        (503, "the server is stopping; send the request again later")
    ] * 2
    assert sent.startswith(b"HTTP/1.1 503")
