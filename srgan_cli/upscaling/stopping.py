"""Which signals ask a run to end, besides Ctrl-C."""

from __future__ import annotations

import signal


def ending_signals() -> tuple[signal.Signals, ...]:
    """SIGTERM, and SIGHUP (the terminal was closed) unless somebody else handles or ignores it, as `nohup` does."""
    hangup: signal.Signals | None = getattr(signal, "SIGHUP", None)  # none on Windows
    if hangup is None or signal.getsignal(hangup) != signal.SIG_DFL:
        return (signal.SIGTERM,)
    return (signal.SIGTERM, hangup)
