"""`srgan serve`: a page and an API on this machine."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING

import click

from srgan_cli.cli.command import Command, Option, in_plain_words, under
from srgan_cli.cli.options import (
    Decimal,
    Factor,
    device_option,
    model_option,
    no_config_option,
    precision_option,
    quiet_option,
    tile_option,
)
from srgan_cli.cli.picture_options import one_picture
from srgan_cli.config import AUTO_MODEL, EngineOptions, Precision, UpscaleOptions
from srgan_cli.errors import SettingsError, SrganError, in_python, shown

if TYPE_CHECKING:
    from srgan_cli.serving.settings import Parameter, Questions

_listening, _limits, _options = under("Listening"), under("Limits"), under("Options")

# The options of `srgan upscale` that a request may have; the others concern files, folders and the machine.
_ASKED = (
    "scale", "long_side", "width", "height", "fit", "paper", "dpi", "only_enlarge", "copy_large", "model", "detail",
    "color_lock", "grain", "seed", "variation", "max_pixels", "pages", "accept_damaged", "timeout_s", "format_",
    "quality", "bit_depth", "lossless", "tiff_layout", "tiff_tile_px", "png_level", "background", "strip", "keep_text",
)  # fmt: skip


@click.command(cls=Command)
@_listening(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; a --token is required if other machines can reach it.",
)
@_listening("--port", type=int, default=8780, show_default=True, metavar="N", help="Port; 0 chooses a free one.")
@_listening(
    "--token", help="Secret that clients must send; better set as SRGAN_SERVE_TOKEN, which other users cannot see."
)
@_listening(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME",
    help="Another host name of this server, behind a proxy for example (repeatable).",
)
@_listening("--open", "opens", is_flag=True, help="Open the page in the browser.")
@model_option(default=AUTO_MODEL, text="Model for requests that name none.")
@device_option()
@precision_option()
@tile_option()
@_limits(
    "--queue",
    type=int,
    default=32,
    show_default=True,
    metavar="N",
    help="Pictures in the queue or being upscaled; more are refused (429).",
)
@_limits(
    "--max-bytes", type=int, default=100_000_000, show_default=True, metavar="N", help="Maximum size of one upload."
)
@_limits(
    "--max-pixels", type=int, default=40_000_000, show_default=True, metavar="N", help="Maximum size of one picture."
)
@_limits(
    "--max-result-pixels",
    type=int,
    default=400_000_000,
    show_default=True,
    metavar="N",
    help="Maximum size of one result.",
)
@_limits(
    "--max-held",
    "held_bytes",
    type=int,
    default=2_000_000_000,
    show_default=True,
    metavar="BYTES",
    help="Memory for uploads, and for results that have not been fetched.",
)
@_limits(
    "--timeout",
    "timeout_s",
    type=Decimal(),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Time limit for one picture, without its time in the queue.",
)
@_limits(
    "--client-timeout",
    "client_timeout_s",
    type=Decimal(),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="Time limit for a client that stops sending or reading.",
)
@_limits(
    "--keep",
    "keep_s",
    type=Decimal(),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to keep a job that no client asks for.",
)
@quiet_option("Print only errors, and no line for each request.")
@no_config_option()
def serve(
    host: str, port: int, token: str | None, allow_hosts: tuple[str, ...], opens: bool, model: str, device: str,
    precision: Precision, tile_px: int | None, queue: int, max_bytes: int, max_pixels: int, max_result_pixels: int,
    held_bytes: int, timeout_s: float, client_timeout_s: float, keep_s: float, quiet: bool,
) -> int:  # fmt: skip
    """Serve a web page to drop pictures on, and an API.

    Only this machine can reach it, unless you give --host. Pictures and results are not kept on disk.

    \b
      srgan serve --open
      curl --data-binary @in.jpg '127.0.0.1:8780/v1/upscale?scale=2&format=png' -o large.png
      SRGAN_SERVE_TOKEN=… srgan serve --host 0.0.0.0
    """
    from srgan_cli.serving.server import HttpServer, Listeners
    from srgan_cli.serving.settings import ServeOptions

    options = ServeOptions(
        host, port, token, allow_hosts, model, EngineOptions(device, precision, tile_px), queue, max_bytes, max_pixels,
        max_result_pixels, held_bytes, timeout_s, client_timeout_s, keep_s,
    )  # fmt: skip

    def requested(method: str, route: str, status: int, seconds: float) -> None:
        if not quiet:
            click.echo(f"{method} {route} {status} {seconds * 1e3:.0f} ms", err=True)

    server = HttpServer(options, questions(), Listeners(requested, _report))
    click.echo(server.address)
    if opens:
        click.launch(server.address)
    # uvicorn's own handlers stop the server, and then raise the signal again
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _already_ended)
    server.run()
    return 0


def _already_ended(_number: int, _frame: FrameType | None) -> None:
    """Ending is the normal way for a server to stop."""


def _report(err: BaseException) -> None:
    """A failure to load the model, or a defect in srgan, for the server's operator."""
    if isinstance(err, SrganError):
        click.echo(f"note: pictures will fail: {shown(err.sentence)}", err=True)
        return
    click.echo("".join(traceback.format_exception(err)).rstrip(), err=True)


# ----------------------------------------------------------------------------------------------- options of requests


def questions() -> Questions:
    from srgan_cli.serving.settings import Questions

    return Questions(tuple(_parameters()), parse)


def _offered() -> Iterator[Option]:
    known = {param.name: param for param in one_picture.params}
    for name in _ASKED:
        option = known[name]
        assert isinstance(option, Option)
        yield option


def _parameters() -> Iterator[Parameter]:
    from srgan_cli.serving.settings import Parameter

    for option in _offered():
        yield Parameter(option.key.replace("-", "_"), _schema(option), in_python(option.help or ""))


def _schema(option: Option) -> dict[str, object]:
    if option.is_flag:
        return {"type": "boolean"}
    if isinstance(option.type, click.Choice):
        return {"type": "string", "enum": [str(choice) for choice in option.type.choices]}
    if isinstance(option.type, (Factor, Decimal)):
        return {"type": "number"}
    return {"type": "integer" if option.type == click.INT else "string"}


def parse(words: Mapping[str, str]) -> UpscaleOptions:
    """A request's options, parsed with the command line's declarations. Raises `SettingsError`."""
    known = {option.key.replace("-", "_"): option for option in _offered()}
    arguments: list[str] = []
    for name, value in words.items():
        if name not in known:
            raise SettingsError(f"unknown option {shown(name)}; choose from {', '.join(known)}")
        arguments += _argument(known[name], value)
    try:
        context = one_picture.make_context("request", arguments)
    except click.ClickException as err:
        raise SettingsError(in_python(in_plain_words(err.format_message()))) from err
    options = context.invoke(one_picture, **context.params)
    assert isinstance(options, UpscaleOptions)
    return options


_SWITCHES = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


def _argument(option: Option, value: str) -> list[str]:
    name = max(option.opts, key=len)
    if not option.is_flag:
        return [f"{name}={value}"]
    if value.lower() not in _SWITCHES:
        raise SettingsError(f"{option.key.replace('-', '_')} must be true or false, not {shown(value)}")
    if _SWITCHES[value.lower()]:
        return [name]
    return [max(option.secondary_opts, key=len)] if option.secondary_opts else []
