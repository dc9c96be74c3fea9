"""Servers in separate threads, and clients that speak plain HTTP."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image as Pillow

from srgan_cli.cli.serve import questions
from srgan_cli.serving.server import HttpServer, Listeners
from srgan_cli.serving.settings import ServeOptions


@contextmanager
def running(options: ServeOptions, **listeners: Any) -> Iterator[HttpServer]:
    server = HttpServer(options, questions(), Listeners(**listeners))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while get(server, "/healthz").status != 200:
            time.sleep(0.01)
        yield server
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        return str(self.json["detail"])

    @property
    def size(self) -> tuple[int, int]:
        return Pillow.open(io.BytesIO(self.body)).size


def ask(
    server: HttpServer, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> Answer:
    connection = http.client.HTTPConnection(urlsplit(server.address).netloc, timeout=90)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def get(server: HttpServer, path: str, **headers: str) -> Answer:
    return ask(server, "GET", path, headers=headers)


def post(server: HttpServer, path: str, body: bytes, **headers: str) -> Answer:
    return ask(server, "POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})


def form(*parts: tuple[str, str | None, bytes]) -> tuple[bytes, str]:
    """A form's body and its type, from names, file names and contents."""
    boundary = "a-boundary-of-tests"
    body = b""
    for name, file, content in parts:
        where = f'form-data; name="{name}"' + ("" if file is None else f'; filename="{file}"')
        body += f"--{boundary}\r\nContent-Disposition: {where}\r\n\r\n".encode() + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def png(width: int = 12, height: int = 9) -> bytes:
    pixels = np.random.default_rng([width, height]).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def connect(server: HttpServer, sent: bytes) -> socket.socket:
    """A connection on which so much has been sent."""
    address = urlsplit(server.address)
    assert address.hostname is not None
    connection = socket.create_connection((address.hostname, address.port or 80), timeout=90)
    connection.sendall(sent)
    return connection


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


def gauge(server: HttpServer, name: str) -> float:
    """One number of /metrics."""
    lines = get(server, "/metrics").body.decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])
