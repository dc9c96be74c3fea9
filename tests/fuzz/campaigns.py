"""Runs that are killed, interrupted, without disk space, with I/O errors, with links, or in competition: is anything
lost?

    python -m tests.fuzz.campaigns --runs 100 --seed 1                     # all of them, upscale, documents and train
    python -m tests.fuzz.campaigns kill crowd4 --of upscale --runs 500

Each run is disturbed at a random moment and then given the same command again until it ends well. What must hold: no
file under a result's name is ever anything but the whole result; in the end everything is there, bit by bit as in an
undisturbed run; nothing is left over; nothing outside the output folder has changed; exit codes are as documented.
One line of JSON for each campaign; code 1 if anything was lost.

Linux only: processes are forked from one that has loaded everything, so that a run takes a fraction of a second.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeAlias

os.environ["OMP_NUM_THREADS"] = "1"

from PIL import Image as Pillow

from srgan_cli.cli import main as srgan
from srgan_cli.errors import WeightsError
from srgan_cli.files import part_name
from srgan_cli.networks.registry import parse_header
from srgan_cli.upscaling.record_storage import FILE_NAME
from tests.documents.films import film
from tests.faults import save_tiny
from tests.fuzz.documents import documents
from tests.imaging import samples
from tests.upscaling.pictures import picture

_PATIENCE_S = 120.0
_TRIES = 4  # of the same command, until it ends well
_SECRET = b"not ours\n"
_DISK_KIB = 64
_ERRORS = (errno.EIO, errno.EIO, errno.ESTALE, errno.EDQUOT, errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOTCONN)
Fault: TypeAlias = tuple[Path, int, int, int]  # a folder, the first call below it that fails, how many do, and how


@dataclass(frozen=True)
class Workload:
    """A command that is disturbed: its results are what `results` finds in `folder`, by name."""

    name: str
    arguments: Callable[[Path], list[str]]
    folder: str
    own_names: tuple[str, ...]  # of files of its own, for links
    codes: frozenset[int]  # that a disturbed run may end with
    inputs: str  # the folder whose reading may fail; a run that trains goes on without a picture that it cannot read

    def results(self, where: Path) -> dict[str, bytes]:
        if self.name == "train":
            model = where / self.folder / "model.safetensors"
            return {"model.safetensors": model.read_bytes()} if model.exists() else {}
        found = (where / self.folder).rglob("[!.]*")
        return {path.name: path.read_bytes() for path in found if path.is_file()}

    def are_equal(self, found: dict[str, bytes], expected: dict[str, bytes]) -> bool:
        """To the bit. A model's card says how long it took, which differs; its numbers must not."""
        if self.name != "train":
            return found == expected
        return {name: _numbers(data) for name, data in found.items()} == {
            name: _numbers(data) for name, data in expected.items()
        }

    def leftovers(self, where: Path) -> list[str]:
        names = [path.name for path in (where / self.folder).rglob(".*")]
        return sorted(name for name in names if name != FILE_NAME)


def _numbers(model: bytes) -> bytes:
    """Of a safetensors file what comes behind its header: the tensors, in the order of their names."""
    return model[8 + int.from_bytes(model[:8], "little") :]


def _upscale(where: Path) -> list[str]:
    return ["upscale", str(where / "in"), *_upscaling(where)]


def _upscaling(where: Path) -> list[str]:
    return ["-o", str(where / "out"), "-r", "--resume", "-q", "--scale", "2", "--device", "cpu", "--precision", "fp32",
            "--model", str(where / "tiny.safetensors")]  # fmt: skip


def _documents(where: Path) -> list[str]:
    inputs = (where / "documents").iterdir()
    return ["upscale", *sorted(map(str, inputs)), *_upscaling(where)]


def _train(where: Path) -> list[str]:
    return ["train", "--hr-dir", str(where / "in"), "--out", str(where / "run"), "--steps", "12", "--crop", "16",
            "--batch", "2", "--preset", "compact", "--scale", "2", "--device", "cpu", "--precision", "fp32", "-q",
            "--set", "generator.features=4", "generator.blocks=1", "watch.checkpoint_every_steps=2",
            "watch.validate_every_steps=6", "watch.samples=1", "watch.log_every_steps=2", "data.min_std=0",
            "data.val_max=1", f"data.cache_dir={where / 'cache'}"]  # fmt: skip


def _own(target: str, grown: str) -> tuple[str, ...]:
    """Names of the temporary files beside a result while it is made."""
    part = part_name(Path(target))
    return FILE_NAME, *(f".{part}.srgan-{what}" for what in ("journal", grown, f"{grown}.lock"))


WORKLOADS = {
    "upscale": Workload("upscale", _upscale, "out", _own("a.png", "scratch"), frozenset({0, 1, 2, 3, 130}), "in"),
    "documents": Workload("documents", _documents, "out", _own("a.tif", "pages"), frozenset({0, 1, 2, 3, 130}),
                          "documents"),
    "train": Workload("train", _train, "run", ("log.jsonl", "checkpoint", ".lock"),
                      frozenset({0, 1, 2, 4, 130}), "run"),
}  # fmt: skip


def prepare(where: Path) -> None:
    """Inputs: small pictures, two large enough for a scratch file, one in a folder below."""
    dice = random.Random(0)
    for number, name in enumerate("abcdefgh"):
        side = 120 if name in "ae" else dice.randrange(40, 70)
        picture(where / "in" / ("sub" if name == "h" else "") / f"{name}.png", side, side - 5, seed=number)
    save_tiny(where / "tiny.safetensors", 2, features=4)
    _prepare_documents(where / "documents")


def _prepare_documents(where: Path) -> None:
    """Pages of a TIFF, one with a scratch file; an archive; an animation of each kind; a PDF where pikepdf is there."""
    where.mkdir()
    shots = [Pillow.fromarray(samples.pixels(40 + 9 * n, 50 - 5 * n, 3)) for n in range(4)]
    shots.append(Pillow.fromarray(samples.pixels(120, 110, 3)))
    shots[0].save(where / "a.tif", save_all=True, append_images=shots[1:])
    with zipfile.ZipFile(where / "b.cbz", "w") as file:
        for number, shot in enumerate(shots):
            file.writestr(f"{number}.png", samples.encoded(shot, "PNG"))
            file.writestr(f"{number}.txt", b"between")
    for name, format_ in (("c.gif", "GIF"), ("d.webp", "WEBP"), ("e.png", "PNG")):
        (where / name).write_bytes(film(format_))
    for seed in documents():
        if seed.name == "pdf classic":
            (where / "f.pdf").write_bytes(seed.data)


def start(workload: Workload, where: Path, fault: Fault | None = None) -> int:
    """The command in a process of its own; returns its number."""
    number = os.fork()
    return number or _run_as_child(workload, where, fault)


def _run_as_child(workload: Workload, where: Path, fault: Fault | None) -> NoReturn:
    code = 99
    try:
        if fault is not None:
            folder, *numbers = fault
            ctypes.CDLL(None).srgan_fail(os.fsencode(folder), *map(ctypes.c_long, numbers))
        os.setsid()
        log = os.open(where / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["XDG_CACHE_HOME"] = str(where / "cache")
        from srgan_cli.upscaling import growing, journal, pipeline, places, plan

        for module in (plan, places, pipeline):
            vars(module)["CANVAS_BYTES"] = 100_000  # so that some results have scratch files
        for other in (journal, growing):
            vars(other)["EVERY_SECONDS"] = 0.0
        code = int(srgan(workload.arguments(where)))
        if fault is not None:
            (where / "calls.txt").write_text(str(ctypes.CDLL(None).srgan_seen()))
    except BaseException:  # noqa: BLE001 - a child must not return
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(process: int) -> int | None:
    """Its exit code (negative: the signal that ended it); None where it had to be killed for taking too long."""
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


class Campaign:
    """Runs of one kind: what is done to them, and what was lost."""

    def __init__(self, kind: str, workload: Workload, base: Path, seed: int) -> None:
        self.kind, self.workload, self.base = kind, workload, base
        self.dice = random.Random(f"{kind} {workload.name} {seed}")
        self.losses: Counter[str] = Counter()
        self.calls: dict[str, int] = {}  # that are about a file of a folder, in an undisturbed run
        undisturbed = self._fresh()
        began = time.monotonic()
        code = wait(start(workload, undisturbed))
        self.seconds = time.monotonic() - began
        self.expected = workload.results(undisturbed)
        assert code == 0, (undisturbed / "said.txt").read_text()
        assert self.expected

    def _fresh(self) -> Path:
        where = Path(tempfile.mkdtemp(dir=self.base))
        for name in ("in", "documents", "tiny.safetensors"):
            (where / name).symlink_to(self.base / name)
        return where

    def run(self) -> None:
        where = self._fresh()
        try:
            getattr(self, f"_{self.kind.rstrip('24')}")(where)
        finally:
            shutil.rmtree(where, ignore_errors=True)

    # ------------------------------------------------------------------------------------------------- what must hold

    def _lost(self, what: str, where: Path, *names: str) -> None:
        self.losses[what] += 1
        said = (where / "said.txt").read_text(errors="replace") if (where / "said.txt").exists() else ""
        sys.stderr.write(f"{self.kind} of {self.workload.name}: {what}: {sorted(names)}\n{said[-1500:]}\n")

    def _ended(self, code: int | None, where: Path) -> None:
        if code is None:
            self._lost("hang", where)
        elif code >= 0 and code not in self.workload.codes:
            self._lost(f"exit code {code}", where)

    def _check_whole(self, where: Path) -> None:
        """Whatever has a result's name is that result; a run that trains keeps earlier, whole models meanwhile."""
        for name, data in self.workload.results(where).items():
            if data != self.expected.get(name) and not (self.workload.name == "train" and _is_model(data)):
                self._lost("half or other result", where, name)

    def _finish(self, where: Path) -> None:
        """The same command again, until it ends well: then all is there, and nothing else."""
        self._check_whole(where)
        code = None
        for _ in range(_TRIES):
            code = wait(start(self.workload, where))
            if code == 0:
                break
        if code != 0:
            self._lost(f"not finished: {code}", where)
        elif not self.workload.are_equal(found := self.workload.results(where), self.expected):
            names = {*found, *self.expected}
            self._lost("result lost or different", where, *(n for n in names if found.get(n) != self.expected.get(n)))
        if self.workload.leftovers(where):
            self._lost(f"left over: {self.workload.leftovers(where)}", where)
        if "Traceback" in (where / "said.txt").read_text(errors="replace"):
            self._lost("traceback", where)

    # ---------------------------------------------------------------------------------------------------- disturbances

    def _moment(self) -> float:
        return self.dice.uniform(0, 1.1 * self.seconds)

    def _kill(self, where: Path) -> None:
        for _ in range(self.dice.choice((1, 1, 2, 3))):
            process = start(self.workload, where)
            time.sleep(self._moment())
            os.kill(process, signal.SIGKILL)
            wait(process)
            self._check_whole(where)
        self._finish(where)

    def _signal(self, where: Path) -> None:
        number = self.dice.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        process = start(self.workload, where)
        time.sleep(self._moment())
        os.kill(process, number)
        code = wait(process)
        if code == -number:  # it came before the command had begun to listen
            code = 130
        self._ended(code, where)
        self._finish(where)

    def _disk(self, where: Path) -> None:
        """A disk that is full at some point, and then has room."""
        place = where / self.workload.folder
        place.mkdir()
        size = self.dice.randrange(8, _DISK_KIB if self.workload.name == "train" else 4 * _DISK_KIB)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)], check=True)
        try:
            self._ended(wait(start(self.workload, where)), where)
            self._check_whole(where)
            subprocess.run(["mount", "-o", "remount,size=200m", str(place)], check=True)
            self._finish(where)
        finally:
            subprocess.run(["umount", "-l", str(place)], check=False)

    def _io(self, where: Path) -> None:
        """A drive that fails at some call that reads or changes a file, as network drives do: once, a few times, or
        from then on. Which calls there are is counted in an undisturbed run."""
        place = self.dice.choice((self.workload.folder, self.workload.folder, self.workload.inputs))
        number = self.dice.randrange(self._calls(place))
        many = self.dice.choice((1, 1, 3, 1 << 30))
        fault = ((where / place).resolve(), number, many, self.dice.choice(_ERRORS))
        self._ended(wait(start(self.workload, where, fault)), where)
        self._finish(where)

    def _calls(self, place: str) -> int:
        if place not in self.calls:
            where = self._fresh()
            assert wait(start(self.workload, where, ((where / place).resolve(), 1 << 40, 0, 0))) == 0
            self.calls[place] = int((where / "calls.txt").read_text())
        return self.calls[place]

    def _links(self, where: Path) -> None:
        """Own names that lead elsewhere, from the beginning or from some moment on."""
        outside = where / "outside"
        outside.mkdir()
        (outside / "file").write_bytes(_SECRET)
        place = where / self.workload.folder
        place.mkdir()
        late = self.dice.random() < 0.5
        process = start(self.workload, where) if late else None
        if late:
            time.sleep(self._moment())
        for name in self.dice.sample(self.workload.own_names, self.dice.choice((1, 2))):
            self._link(place / name, outside / "file")
        if process is not None:
            self._ended(wait(process), where)
        self._ended(wait(start(self.workload, where)), where)
        for name in self.workload.own_names:  # as a user would do after the error message
            path = place / name
            if path.is_symlink() or (path.is_file() and path.read_bytes() == _SECRET):
                path.unlink()
        self._finish(where)
        if [p.name for p in outside.iterdir()] != ["file"] or (outside / "file").read_bytes() != _SECRET:
            self._lost("written outside", where)

    def _link(self, path: Path, outside: Path) -> None:
        make = self.dice.choice((lambda: path.symlink_to(outside), lambda: os.link(outside, path),
                                 lambda: path.symlink_to(outside.with_name("new"))))  # fmt: skip
        for _ in range(100):  # the run may make its own in between
            path.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):
                make()
                break

    def _crowd(self, where: Path) -> None:
        """Several processes with the same command in one folder at once."""
        processes = []
        for _ in range(int(self.kind[-1])):
            processes.append(start(self.workload, where))
            time.sleep(self.dice.uniform(0, 0.3 * self.seconds))
        for process in processes:
            self._ended(wait(process), where)
        self._finish(where)


def _is_model(data: bytes) -> bool:
    try:
        parse_header(io.BytesIO(data), len(data), "the model")
    except WeightsError:
        return False
    return True


KINDS = ("kill", "signal", "disk", "io", "links", "crowd2", "crowd4")


def _why_not(kind: str) -> str | None:
    if kind == "disk" and os.geteuid() != 0:
        return "small disks can be made by root only"
    if kind == "io" and not hasattr(ctypes.CDLL(None), "srgan_fail"):
        return "a C compiler is needed"
    return None


def _with_failing_drive() -> None:
    """This program again, with calls of the C library that can be made to fail; as it is where there is no compiler."""
    compiler, preloaded = shutil.which("cc"), os.environ.get("LD_PRELOAD", "")
    if "srgan_failing_io" in preloaded:
        del os.environ["LD_PRELOAD"]  # programs that are started have no need of it
        Path(preloaded).unlink()
    if compiler is None or hasattr(ctypes.CDLL(None), "srgan_fail"):
        return
    made = Path(tempfile.gettempdir()) / f"srgan_failing_io_{os.getpid()}.so"
    source = Path(__file__).with_name("failing_io.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(made), str(source), "-ldl"], check=True)
    os.environ["LD_PRELOAD"] = str(made)
    os.execv(sys.executable, [sys.executable, "-m", "tests.fuzz.campaigns", *sys.argv[1:]])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=KINDS, help=", ".join(KINDS))
    parser.add_argument("--of", choices=list(WORKLOADS), nargs="+", default=list(WORKLOADS))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    lost = False
    with tempfile.TemporaryDirectory(prefix="srgan-campaigns-") as folder:
        base = Path(folder)
        prepare(base)
        for name in args.of:
            for kind in args.kinds:
                if (reason := _why_not(kind)) is not None:
                    sys.stderr.write(f"{kind}: {reason}; left out\n")
                    continue
                began = time.monotonic()
                campaign = Campaign(kind, WORKLOADS[name], base, args.seed)
                for _ in range(args.runs):
                    campaign.run()
                lost = lost or bool(campaign.losses)
                result = {"case": kind, "of": name, "runs": args.runs, "seed": args.seed}
                result |= {"losses": dict(campaign.losses), "seconds": round(time.monotonic() - began)}
                sys.stdout.write(json.dumps(result) + "\n")
                sys.stdout.flush()
    return int(lost)


if __name__ == "__main__":
    _with_failing_drive()
    import srgan_cli.training.trainer  # noqa: F401 - loaded once, for all children

    sys.exit(main())
