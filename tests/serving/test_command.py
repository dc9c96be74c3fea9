"""`srgan serve` as a process."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from srgan_cli.serving.settings import ServeOptions
from tests.serving.servers import png


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_in_the_middle_of_a_picture(options: ServeOptions, number: signal.Signals) -> None:
    """With a job that would take minutes, and somebody who watches it."""
    command = [sys.executable, "-m", "srgan_cli", "serve", "--port", "0", "-m", options.model, "--device", "cpu",
               "--tile", "16"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=120)
        connection.request("POST", "/v1/jobs?scale=4", png(3000, 3000))
        answer = connection.getresponse()
        path = answer.headers["Location"]
        answer.read()
        connection.request("GET", f"{path}/events")
        events = connection.getresponse()
        while b"running" not in events.readline():
            pass
        process.send_signal(number)
        _, errors = process.communicate(timeout=90)
        connection.close()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert "POST /v1/jobs 202" in errors
