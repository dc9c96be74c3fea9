"""Pictures on a web server, which is read-only."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.upscaling.pictures import picture
from tests.upscaling.stores.buckets import command

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]  # the stores' own libraries warn


class Handler(http.server.SimpleHTTPRequestHandler):
    """No ranges; `?silent` says no length; `/busy` is so twice."""

    busy = 2

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        if self.path.startswith("/busy") and Handler.busy:
            Handler.busy -= 1
            self.send_error(503)
        elif "silent" in self.path:
            self.send_response(200)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(Path("made/a.png").read_bytes())
        elif "forbidden" in self.path:
            self.send_error(403)
        else:
            super().do_GET()


@pytest.fixture
def web(here: Path) -> Iterator[str]:
    picture(here / "made/a.png", 20, 16)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(here / "made")))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("query", ["", "?size=large/1", "?silent"])
def test_web_servers_are_read_from(web: str, model: Path, query: str) -> None:
    assert command(model, f"{web}/a.png{query}", "-o", "out/") == 0
    assert command(model, "made/a.png", "-o", "local.png") == 0
    assert Path("out/a.png").read_bytes() == Path("local.png").read_bytes()


@pytest.mark.parametrize(
    ("path", "words"), [("none.png", "there is no such object"), ("forbidden.png", "access is denied")]
)
def test_what_a_web_server_refuses_is_one_sentence(
    web: str, model: Path, path: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(model, f"{web}/{path}", "-o", "x.png") == 3
    assert words in capsys.readouterr().err


def test_a_web_server_lists_nothing_and_takes_nothing(
    web: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(model, f"{web}/a.png") == 2
    assert "a web server can only be read from" in capsys.readouterr().err
