"""The process of `srgan`, which is also `python -m srgan_cli`: runs the command line and ends with its exit code.

Python answers Ctrl-C with a traceback while it imports the command line, and again while it waits for threads after the
last message. Nothing is unfinished then, so there the signal ends the process, as it does with most programs.
"""

import signal


def run() -> int:
    """`srgan_cli.cli.main` with the arguments of the process."""
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not if a parent ignores it, as with `&`
    if is_ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from srgan_cli.cli import main

    try:
        if is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return main()
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    raise SystemExit(run())
