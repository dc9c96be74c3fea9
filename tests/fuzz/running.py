"""One hostile file through the real commands, beside a sound one; and what must hold whatever it was.

A file is known by a seed and a number: the same two give the same bytes again.
"""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from srgan_cli.cli import main
from srgan_cli.dataset.pictures import look_at
from srgan_cli.errors import DefectError, PictureError
from srgan_cli.evaluation.pairs import read_rgb
from srgan_cli.imaging.formats import container_of_suffix
from srgan_cli.upscaling.choice import choose_model
from srgan_cli.upscaling.ledger import FILE_NAME
from tests.faults import save_tiny
from tests.fuzz.corpus import all_seeds
from tests.fuzz.finding import MAX_PIXELS, SCALE, Finding, of_results
from tests.fuzz.mutation import mutated
from tests.upscaling.pictures import picture

MAX_S = 20.0
MAX_BYTES = 2 << 30
_SOUND = "0 sound.png"
_ONE_IN = 4  # files, what is slow is done with


@dataclass(frozen=True)
class Case:
    """One file. `origin` says what it was made of."""

    origin: str
    suffix: str
    data: bytes


def case(seed: int, number: int) -> Case:
    dice = random.Random(f"{seed} {number}")
    seeds = all_seeds()
    chosen = dice.choice(seeds)
    others = [other.data for other in seeds if dice.random() < 0.1] or [chosen.data]
    suffix = chosen.suffix if dice.random() < 0.9 else dice.choice(seeds).suffix
    return Case(chosen.name, suffix, mutated(chosen.data, others, dice))


class Checker:
    """Holds what all files share: a network as small as it gets, and the sound picture's results."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._model = str(save_tiny(folder / "tiny.safetensors", SCALE, features=4))
        self._sound = picture(folder / _SOUND, 12, 9).read_bytes()
        self._expected = {model: self._upscaled(None, model)[2][_SOUND] for model in (self._model, "auto")}

    def check(self, one: Case) -> list[Finding]:
        """All that does not hold of `srgan upscale`, of the readers of `train`, `evaluate` and `--model auto`, and for
        one in four of another command: which one follows from the file's bytes."""
        began = time.monotonic()
        found = list(self._of_upscale(one, self._model))
        found += _of_readers(self._folder / f"alone{one.suffix}", one.data)
        further = zlib.crc32(one.data) % (4 * _ONE_IN)
        if further == 3:
            found += list(self._of_upscale(one, "auto"))
        elif further < 3:
            found += list(self._of_compare(_COMPARISONS[further]))
        seconds = time.monotonic() - began
        return [*found, Finding("slow", f"{seconds:.1f} s")] if seconds > MAX_S else found

    def _upscaled(self, one: Case | None, model: str) -> tuple[int, str, dict[str, bytes], Path]:
        """Exit code, what was said, and the output folder's files."""
        work = self._folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        (work / "in").mkdir(parents=True)
        (work / "in" / _SOUND).write_bytes(self._sound)
        inputs = [work / "in"]
        if one is not None:
            hostile = work / "in" / f"1 hostile{one.suffix}"
            hostile.write_bytes(one.data)
            if container_of_suffix(one.suffix):  # these are for a run where they are named
                inputs.append(hostile)
        code, said = _run("upscale", *inputs, "-o", work / "out", "--max-pixels", MAX_PIXELS, "--model", model,
                          "--scale", SCALE, "--device", "cpu", "--precision", "fp32")  # fmt: skip
        made = {path.name: path.read_bytes() for path in (work / "out").rglob("*") if path.is_file()}
        return code, said, made, work

    def _of_upscale(self, one: Case, model: str) -> Iterator[Finding]:
        try:
            code, said, made, work = self._upscaled(one, model)
        except BaseException:  # noqa: BLE001 - that is what is looked for
            yield Finding("traceback", traceback.format_exc())
            return
        results = sorted(name for name in made if name.startswith("1 hostile"))
        if code not in (0, 1) or (code == 0) != bool(results):
            yield Finding("exit code", f"{code}, with {sorted(made)}: {said}")
        yield from _of_words(said)
        if made.get(_SOUND) != self._expected[model]:
            yield Finding("sound picture", f"its result is missing or another one: {said}")
        strange = set(made) - {_SOUND, FILE_NAME, *results}
        if strange:
            yield Finding("leftover", f"{sorted(strange)}")
        if results:
            yield from of_results(work / "in" / f"1 hostile{one.suffix}", [work / "out" / name for name in results])

    def _of_compare(self, arguments: tuple[str, ...]) -> Iterator[Finding]:
        """`srgan compare` of the file with its result, if there is one, else with the sound picture."""
        work = self._folder / "work"
        hostile = next((work / "in").glob("1 hostile*"))
        made = next((work / "out").glob("1 hostile*"), work / "in" / _SOUND)
        named = {"file": hostile, "made": made, "in": work / "in", "out": work / "out"}
        *of, target = arguments
        try:
            code, said = _run("compare", *(named[name] for name in of), "-o", work / target)
        except BaseException:  # noqa: BLE001 - that is what is looked for
            yield Finding("traceback of compare", traceback.format_exc())
            return
        if code not in (0, 1, 2, 3) or (code == 0) != (work / target).is_file():
            yield Finding("exit code of compare", f"{code}: {said}")
        yield from _of_words(said)


# What is compared, by its name in `Checker._of_compare`, and the file that comes out.
_COMPARISONS = (("file", "made", "sheet.png"), ("file", "made", "page.html"), ("in", "out", "gallery.html"))


def _run(command: str, *arguments: object) -> tuple[int, str]:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = main([command, *map(str, arguments)])
    return int(code), said.getvalue()


def _of_words(said: str) -> Iterator[Finding]:
    if "Traceback" in said or "a defect in srgan" in said:
        yield Finding("defect", said)


def _of_readers(path: Path, data: bytes) -> list[Finding]:
    path.write_bytes(data)
    readers: dict[str, Callable[[], object]] = {
        "train": lambda: look_at(path),
        "evaluate": lambda: read_rgb(path),
        "auto": lambda: choose_model(path, max_pixels=MAX_PIXELS),
    }
    found = []
    for name, reader in readers.items():
        try:
            reader()
        except PictureError as err:
            if isinstance(err, DefectError):
                found.append(Finding(f"defect in {name}", str(err)))
        except BaseException:  # noqa: BLE001 - that is what is looked for
            found.append(Finding(f"traceback of {name}", traceback.format_exc()))
    path.unlink()
    return found


@contextlib.contextmanager
def checker() -> Iterator[Checker]:
    with tempfile.TemporaryDirectory(prefix="srgan-fuzz-") as folder:
        yield Checker(Path(folder))
