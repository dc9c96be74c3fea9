"""`srgan watch`: enlarges new pictures in a folder as they arrive."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from srgan_cli.cli.command import under
from srgan_cli.cli.name_lists import check_list, write_list
from srgan_cli.cli.options import (
    Decimal,
    json_option,
    no_config_option,
    output_option,
    path,
    quiet_option,
)
from srgan_cli.cli.picture_options import PicturesCommand, as_one, reading, size_and_model, writing_and_computing
from srgan_cli.cli.upscale import as_interrupt
from srgan_cli.config import UpscaleOptions

if TYPE_CHECKING:
    from srgan_cli.upscaling.observer import Observer
    from srgan_cli.upscaling.session import Session

_watching, _output = under("Watching"), under("Output")


@click.command(cls=PicturesCommand, no_args_is_help=True)
@click.argument("folder", metavar="DIR", callback=path)
@_watching(
    "--settle",
    "settle_s",
    type=Decimal(),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="A file is complete when it has not changed for this long.",
)
@_watching(
    "--poll",
    "poll_s",
    type=Decimal(),
    metavar="SECONDS",
    help="Check for pictures at this interval, instead of waiting for events. [default: 5 on network drives]",
)
@_watching(
    "--recursive/--no-recursive",
    default=True,
    show_default=True,
    help="Include subfolders, and keep their structure in the output.",
)
@_watching(
    "--failed",
    type=click.Path(),
    callback=path,
    metavar="FILE",
    help="List inputs that failed; --files-from can read it.",
)
@size_and_model
@reading
@output_option("Folder for the results and the record of what is done.", metavar="DIR", required=True)
@writing_and_computing
@quiet_option()
@json_option("Events on stdout, one JSON object per line.")
@no_config_option()
@as_one
def watch(
    folder: Path, asked: UpscaleOptions, settle_s: float, poll_s: float | None, recursive: bool, failed: Path | None,
    output: Path, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Enlarge each picture that arrives in a folder.

    The pictures in DIR are enlarged at once, and new ones as they arrive, until Ctrl-C or SIGTERM. A restart continues
    where the last run ended; a picture that failed is tried again when it changes.

    \b
      srgan watch scans/ -o large/
      srgan watch /mnt/share/in -o /srv/out --poll 5 --model photo --format jpeg
    """
    from srgan_cli.cli.console import stderr
    from srgan_cli.upscaling.stopping import ending_signals
    from srgan_cli.upscaling.watching import WatchOptions
    from srgan_cli.upscaling.watching import watch as run

    options = WatchOptions(folder, output, asked, recursive, settle_s, poll_s)
    if failed is not None:
        check_list("--failed", failed)
        write_list("--failed", failed, [])
    for number in ending_signals():
        signal.signal(number, as_interrupt)
    reporter = _Reporter(failed, quiet=quiet, as_json=as_json)
    reporter.note(f"watching {folder}, results go to {output}")
    made = run(options, reporter)
    if not quiet:
        stderr.print(f"ended; {made} made", markup=False)
    return 0


class _Reporter:
    def __init__(self, failed: Path | None, *, quiet: bool, as_json: bool) -> None:
        self._failed, self._quiet, self._json = failed, quiet, as_json
        self._reported: set[str] = set()

    @contextmanager
    def batch(self, session: Session) -> Iterator[Observer]:
        from srgan_cli.cli.console import Watch

        reported = self._reported

        class Once(Watch):
            def detail(self, sentence: str) -> None:
                """Details on the device and the model are not repeated for each batch."""
                if sentence not in reported:
                    reported.add(sentence)
                    super().detail(sentence)

        with Once(session, quiet=self._quiet, verbose=not self._quiet, as_json=self._json) as shown:
            yield shown

    def note(self, sentence: str) -> None:
        from srgan_cli.cli.console import stderr

        if not self._quiet:
            stderr.print(sentence, markup=False)

    def failed(self, sources: Sequence[Path]) -> None:
        if self._failed is not None:
            write_list("--failed", self._failed, sources)
