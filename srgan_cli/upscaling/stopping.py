"""The signals that end a run, besides Ctrl-C."""

from __future__ import annotations

import signal


def ending_signals() -> tuple[signal.Signals, ...]:
    """SIGTERM, and SIGHUP (terminal closed) unless it is already handled or ignored, as by `nohup`."""
    hangup: signal.Signals | None = getattr(signal, "SIGHUP", None)  # none on Windows
    if hangup is None or signal.getsignal(hangup) != signal.SIG_DFL:
        return (signal.SIGTERM,)
    return (signal.SIGTERM, hangup)
