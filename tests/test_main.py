"""The process of the command: Ctrl-C outside the command line itself."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

_SAY = "import signal, sys, threading, time, srgan_cli.__main__ as process\n"
_WHILE_IMPORTING = """
class Slow:
    def find_spec(self, name, *others):
        if name == 'srgan_cli.cli':
            print('here', flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
"""
_BEFORE_ITS_THREADS_END = """
threading.Thread(target=time.sleep, args=(60,)).start()
sys.argv = ['srgan', '--version']
"""


@pytest.mark.parametrize("when", [_WHILE_IMPORTING, _BEFORE_ITS_THREADS_END])
def test_ctrl_c_before_and_after_the_command_line_is_no_traceback(when: str) -> None:
    code = f"{_SAY}{when}\ntry: process.run()\nfinally: print('here', flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert any("here" in line for line in running.stdout)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    assert (running.returncode, said) == (-signal.SIGINT, "")


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    """As in a script that starts the command with `&`."""
    code = f"{_SAY}signal.signal(signal.SIGINT, signal.SIG_IGN); sys.argv = ['srgan', '--version']; process.run()"
    code += "\nassert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
