"""A small web service that enlarges pictures, with only the standard library and srgan.

    python examples/service.py --model fast --port 8000
    curl --data-binary @examples/cat.jpg 'localhost:8000/upscale?scale=2&format=png' -o large.png

The model is loaded once; requests are read and encoded in parallel, and enlarged one after the other, since one picture
already uses the whole processor. Put a real web server in front of it before you make it public.
"""

from __future__ import annotations

import argparse
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from srgan_cli import EngineOptions, Size, SrganError, UpscaleOptions, Upscaler, WriteOptions, load_model, upscale_file
from srgan_cli.errors import DeviceError, UnreadablePictureError

MAX_BYTES = 50_000_000  # maximum size of a request
MAX_PIXELS = 25_000_000  # maximum size of its picture: a small file may contain a huge one


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        address = urlsplit(self.path)
        if address.path != "/upscale":
            self._answer(HTTPStatus.NOT_FOUND, b"POST a picture to /upscale\n")
            return
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= MAX_BYTES:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send 1 to {MAX_BYTES} bytes\n".encode())
            return
        asked = {name: values[-1] for name, values in parse_qs(address.query).items()}
        try:
            options = UpscaleOptions(
                size=Size(scale=float(asked.get("scale", self.server.upscaler.scale))),
                write=WriteOptions(format=asked.get("format"), strip="gps"),
                max_pixels=MAX_PIXELS,
            )
            result = upscale_file(self.rfile.read(length), None, options, upscaler=self.server.upscaler)
        except UnreadablePictureError as err:
            self._answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{err}\n".encode())
        except DeviceError as err:  # such as out of memory: another attempt may succeed
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{err}\n".encode())
        except (SrganError, ValueError) as err:
            self._answer(HTTPStatus.BAD_REQUEST, f"{err}\n".encode())
        else:
            self._answer(HTTPStatus.OK, result, "application/octet-stream")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Service(ThreadingHTTPServer):
    def __init__(self, port: int, upscaler: Upscaler) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.upscaler = upscaler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fast")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    service = Service(args.port, Upscaler(load_model(args.model), EngineOptions(device=args.device)))
    print(f"http://127.0.0.1:{service.server_port}/upscale")
    service.serve_forever()


if __name__ == "__main__":
    main()
