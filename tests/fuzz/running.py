"""Hostile files through the real commands, beside an intact one; and the properties that must hold for all of them.

A file is known by a seed and a number: the same two give the same bytes again.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import shutil
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from srgan_cli.cli import main
from srgan_cli.dataset.pictures import examine
from srgan_cli.errors import DefectError, PictureError
from srgan_cli.evaluation.pairs import read_rgb
from srgan_cli.imaging.formats import container_of_suffix
from srgan_cli.imaging.reading import open_picture
from srgan_cli.upscaling.choice import choose_model
from srgan_cli.upscaling.record_storage import FILE_NAME
from tests.faults import save_tiny
from tests.fuzz.corpus import all_seeds
from tests.fuzz.finding import MAX_PIXELS, SCALE, Finding, of_results
from tests.fuzz.mutation import mutated
from tests.upscaling.pictures import picture

MAX_S = 20.0
MAX_BYTES = 2 << 30
_SOUND = "0 sound.png"
_ONE_IN = 4  # files, what is slow is done with
# A bundled network takes some 20 s of processor time for a million px, of whatever file: that is not looked for.
_AUTO_PIXELS = 250_000


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
        self._work = folder / "work"
        self._model = str(save_tiny(folder / "tiny.safetensors", SCALE, features=4))
        self._sound = picture(folder / _SOUND, 12, 9).read_bytes()
        self._expected = {model: self._upscaled([], model)[2][_SOUND] for model in (self._model, "auto")}

    def check(self, cases: Sequence[Case]) -> list[Finding]:
        """All that does not hold of `srgan upscale` of a folder with these files, of the readers of `train`, `evaluate`
        and `--model auto`, and for one in four of another command: which one follows from the file's bytes."""
        began = time.process_time()
        found = list(self._of_upscale(cases, self._model))
        further = [zlib.crc32(one.data) % (4 * _ONE_IN) for one in cases]
        for place, (one, which) in enumerate(zip(cases, further, strict=True), start=1):
            found += _of_readers(self._folder / f"alone{one.suffix}", one.data)
            if which < len(_COMPARISONS):
                found += list(self._of_compare(place, _COMPARISONS[which]))
        if lots := [one for one, which in zip(cases, further, strict=True) if which == len(_COMPARISONS)]:
            found += list(self._of_upscale(lots, "auto"))
        seconds = time.process_time() - began  # the machine may have others to serve
        return [*found, Finding("slow", f"{seconds:.1f} s")] if seconds > MAX_S else found

    def _upscaled(self, cases: Sequence[Case], model: str) -> tuple[int, str, dict[str, bytes], list[Path]]:
        """Exit code, what was said, the output folder's files, and the hostile ones."""
        work = self._work
        shutil.rmtree(work, ignore_errors=True)
        (work / "in").mkdir(parents=True)
        (work / "in" / _SOUND).write_bytes(self._sound)
        hostile = [work / "in" / f"{place} hostile{one.suffix}" for place, one in enumerate(cases, start=1)]
        for path, one in zip(hostile, cases, strict=True):
            path.write_bytes(one.data)
        named = [path for path in hostile if container_of_suffix(path.suffix)]  # which no folder is searched for
        most = _AUTO_PIXELS if model == "auto" else MAX_PIXELS
        code, said = _run("upscale", work / "in", *named, "-o", work / "out", "--max-pixels", most,
                          "--model", model, "--scale", SCALE, "--device", "cpu", "--precision", "fp32")  # fmt: skip
        made = {path.name: path.read_bytes() for path in (work / "out").rglob("*") if path.is_file()}
        return code, said, made, hostile

    def _of_upscale(self, cases: Sequence[Case], model: str) -> Iterator[Finding]:
        try:
            code, said, made, hostile = self._upscaled(cases, model)
        except BaseException:  # noqa: BLE001 - that is what is looked for
            yield Finding("traceback", traceback.format_exc())
            return
        results = [sorted(name for name in made if name.startswith(path.stem)) for path in hostile]
        if code not in (0, 1) or (code == 0) != all(results):
            yield Finding("exit code", f"{code}, with {sorted(made)}: {said}")
        yield from _of_words(said)
        if made.get(_SOUND) != self._expected[model]:
            yield Finding("sound picture", f"its result is missing or another one: {said}")
        strange = set(made) - {_SOUND, FILE_NAME, *itertools.chain(*results)}
        if strange:
            yield Finding("leftover", f"{sorted(strange)}")
        for path, names in zip(hostile, results, strict=True):
            if names:
                yield from of_results(path, [self._work / "out" / name for name in names])

    def _of_compare(self, place: int, arguments: tuple[str, ...]) -> Iterator[Finding]:
        """`srgan compare` of the file with its result, if there is one, else with the sound picture."""
        work = self._work
        hostile = next((work / "in").glob(f"{place} hostile*"))
        made = next((work / "out").glob(f"{place} hostile*"), work / "in" / _SOUND)
        named = {"file": hostile, "made": made, "in": work / "in", "out": work / "out"}
        *of, target = arguments
        (work / target).unlink(missing_ok=True)
        try:
            code, said = _run("compare", *(named[name] for name in of), "-o", work / target)
        except BaseException:  # noqa: BLE001 - that is what is looked for
            yield Finding("traceback of compare", traceback.format_exc())
            return
        is_there = (work / target).is_file()
        if code not in (0, 1, 2, 3) or (code == 0 and not is_there) or (code > 1 and is_there):
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
        "train": lambda: examine(path),
        "evaluate": lambda: read_rgb(path),
        "auto": lambda: choose_model(path, max_pixels=MAX_PIXELS),
        "--accept-damaged": lambda: _accepted(path),
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


def _accepted(path: Path) -> None:
    """All that is left of a file, in blocks as the engine asks for them."""
    with open_picture(path, max_pixels=MAX_PIXELS, accept_damaged=True) as picture:
        height = 0
        while rows := len(picture.read_rows(64)):
            height += rows
        assert height == picture.header.height


@contextlib.contextmanager
def checker() -> Iterator[Checker]:
    with tempfile.TemporaryDirectory(prefix="srgan-fuzz-") as folder:
        yield Checker(Path(folder))
