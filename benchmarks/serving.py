"""What `srgan serve` adds to a small picture: a request over HTTP beside the same call in Python.

    python -m benchmarks.serving                 # one JSON line for each size
    python -m benchmarks.serving --requests 100

A request on a persistent connection alternates with a call of `upscale_file` with a loaded model, PNG in and out, in
one process, so that both have the same conditions. `overhead_ms` is the difference of the medians, `ratio` theirs, and
`min_overhead_ms` the difference of the quickest; `around_making_p50_ms` is what a request took beyond the making of its
picture, as the server measured that. The line with `side_px` 0 excludes the enlarging: the cost of the server and HTTP
alone.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import statistics
import threading
import time
from unittest.mock import patch
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from srgan_cli import EngineOptions, UpscaleOptions, Upscaler, WriteOptions, load_model, upscale_file
from srgan_cli.cli.serve import questions
from srgan_cli.serving import app
from srgan_cli.serving.making import Result
from srgan_cli.serving.server import HttpServer
from srgan_cli.serving.settings import ServeOptions

SIDES_PX = (32, 64, 128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fast-x4")
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    engine = EngineOptions(device=args.device)
    server = HttpServer(ServeOptions(port=0, model=args.model, engine=engine), questions())
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        upscaler = Upscaler(load_model(args.model), engine)
        print(json.dumps(bare(server.address, args.requests)), flush=True)
        for side_px in SIDES_PX:
            print(json.dumps(measure(server.address, upscaler, side_px, args.requests)), flush=True)
    finally:
        server.stop()
        thread.join()


def bare(address: str, requests: int) -> dict[str, object]:
    """Requests whose picture is returned as soon as it is their turn."""
    picture = small(32)
    result = Result(small(64), "png", 64, 64, "none", "", (), 0.0)
    with patch.object(app, "make", lambda *_args, **_limits: result):
        connection = http.client.HTTPConnection(urlsplit(address).netloc)
        seconds = []
        for _ in range(5 * requests):
            began = time.perf_counter()
            connection.request("POST", "/v1/upscale?format=png", picture)
            connection.getresponse().read()
            seconds.append(time.perf_counter() - began)
        connection.close()
    return {"side_px": 0, "requests": len(seconds), "overhead_ms": round(statistics.median(seconds) * 1e3, 2),
            "min_overhead_ms": round(min(seconds) * 1e3, 2)}  # fmt: skip


def measure(address: str, upscaler: Upscaler, side_px: int, requests: int) -> dict[str, object]:
    picture = small(side_px)
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    options = UpscaleOptions(write=WriteOptions("png"), engine=upscaler.options)
    served, called, inside = [], [], []
    for turn in range(requests + 5):
        began = time.perf_counter()
        connection.request("POST", "/v1/upscale?format=png", picture)
        answer = connection.getresponse()
        body = answer.read()
        middle = time.perf_counter()
        result = upscale_file(picture, None, options, upscaler=upscaler)
        end = time.perf_counter()
        assert (answer.status, len(body) > 0, len(result) > 0) == (200, True, True)
        if turn >= 5:  # the first ones are warm-up
            served.append(middle - began)
            called.append(end - middle)
            inside.append(middle - began - _made_s(answer.headers["Server-Timing"]))
    connection.close()
    served_s, called_s = statistics.median(served), statistics.median(called)
    return {
        "side_px": side_px,
        "model": upscaler.models[0].name,
        "requests": requests,
        "served_p50_ms": round(served_s * 1e3, 2),
        "python_p50_ms": round(called_s * 1e3, 2),
        "overhead_ms": round((served_s - called_s) * 1e3, 2),
        "min_overhead_ms": round((min(served) - min(called)) * 1e3, 2),
        "around_making_p50_ms": round(statistics.median(inside) * 1e3, 2),
        "ratio": round(served_s / called_s, 3),
    }


def _made_s(timing: str) -> float:
    """From `wait;dur=0.3, upscale;dur=40.1`, the time of upscaling."""
    return float(timing.rpartition("dur=")[2]) / 1e3


def small(side_px: int) -> bytes:
    pixels = np.random.default_rng(side_px).integers(0, 256, (side_px, side_px, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
