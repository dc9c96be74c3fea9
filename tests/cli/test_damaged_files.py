"""Every format with a damaged header, through every command: only that picture fails, with one sentence."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from srgan_cli.cli import main
from srgan_cli.config import EngineOptions
from srgan_cli.serving.settings import ServeOptions
from tests.fuzz.corpus import all_seeds
from tests.fuzz.seeds import Seed
from tests.serving.servers import post, running
from tests.upscaling.pictures import picture

pytestmark = pytest.mark.timeout(120)

Run = Callable[..., tuple[int, str, str]]
_PPM = Seed("ppm", ".ppm", b"P6 23 17 255\n" + bytes(range(256)) * 5)


def seeds() -> list[Seed]:
    """The first of each format, and what is not the plainest of some."""
    found: dict[str, Seed] = {}
    for seed in (*all_seeds(), _PPM):
        found.setdefault(seed.suffix, seed)
    more = ("png with everything", "jpeg with everything", "webp animation", "gif animation", "bmp rle", "tiff LAB")
    return [*found.values(), *(seed for seed in all_seeds() if seed.name in more)]


def damaged(seed: Seed) -> Iterator[bytes]:
    """Cut in its header; sizes and offsets that are all ones, or all zeros; noise behind the first bytes."""
    data, dice = seed.data, random.Random(seed.name)
    yield data[:30]
    yield data[: min(len(data) // 2, 120)]
    for fill in (b"\xff" * 4, bytes(4)):
        at = dice.randrange(8, min(60, len(data) - 8))
        yield data[:at] + fill + data[at + 4 :]
    yield data[:14] + dice.randbytes(60) + data[74:]


@pytest.fixture
def broken(here: Path) -> list[Path]:
    """Of each format five files in `broken`; sound ones in `photos`."""
    for number in range(4):
        picture(here / "photos" / f"{number}.png", 50, 44, seed=number)
    paths = []
    for place, seed in enumerate(seeds()):
        for number, data in enumerate(damaged(seed)):
            paths.append(here / "broken" / f"{place}-{number}{seed.suffix}")
            paths[-1].parent.mkdir(exist_ok=True)
            paths[-1].write_bytes(data)
    return paths


@pytest.fixture
def srgan(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(list(map(str, arguments)))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert "a defect in srgan" not in out + err
        return int(code), out, err

    return run


CPU = ("--device", "cpu", "--precision", "fp32")


def test_all_formats_are_there() -> None:
    extras = {".heic", ".pdf"}
    assert {seed.suffix for seed in seeds()} - extras == {
        ".png", ".jpg", ".webp", ".gif", ".bmp", ".tif", ".avif", ".jp2", ".cbz", ".zip", ".ppm"
    }  # fmt: skip


@pytest.mark.parametrize("dry", [True, False])
def test_plan_and_upscale(srgan: Run, broken: list[Path], tiny_x2: Path, dry: bool) -> None:
    code, out, err = srgan("upscale", "photos", *broken, "-o", "out", "-m", tiny_x2, *CPU, *["--dry-run"] * dry)
    assert code == 1
    refused = [path for path in broken if path.name in out + err]
    assert len(refused) > len(broken) / 2
    made = {path.name for path in Path("out").glob("*") if path.is_file()}
    assert made >= (set() if dry else {f"{number}.png" for number in range(4)})
    assert not [name for name in made if name.startswith(".") and name != ".srgan-manifest.jsonl"]


def test_the_look_that_chooses_a_model(srgan: Run, broken: list[Path]) -> None:
    code, out, err = srgan("upscale", "photos/0.png", *broken, "-o", "out", "--model", "auto", "--dry-run")
    assert code == 1
    assert "0.png" in out + err


def test_evaluate(srgan: Run, broken: list[Path], tiny_x2: Path) -> None:
    for path in Path("photos").iterdir():
        path.rename(Path("broken") / path.name)
    code, out, err = srgan("evaluate", "--hr-dir", "broken", "-m", tiny_x2, "--metrics", "none", *CPU)
    assert code == 1
    assert "0.png" in out + err
    assert sum(path.name in out + err for path in broken) > len(broken) / 3


def test_compare(srgan: Run, broken: list[Path]) -> None:
    for place, path in enumerate(broken):
        target = ("sheet.png", "page.html")[place % 2]
        code, _, err = srgan("compare", path, "photos/0.png", "-o", target)
        assert code in (0, 1, 2, 3)
        assert code == 0 or err.strip()
    for path in (*broken, Path("sound.png")):
        picture(Path("large") / f"{path.stem}.png", 50, 44)
    picture(Path("broken/sound.png"), 25, 22)
    code, out, err = srgan("compare", "broken", "large", "-o", "gallery.html")
    assert code in (0, 1)
    assert "sound.png" in Path("gallery.html").read_text()
    assert sum(path.name in out + err for path in broken) > 10


def test_train(srgan: Run, broken: list[Path]) -> None:
    settings = ("generator.features=4", "generator.blocks=1", "data.min_std=0", "data.val_max=1", "watch.samples=1",
                "data.cache_dir=cache")  # fmt: skip
    code, out, err = srgan(
        "train", "--hr-dir", "photos", "broken", "--out", "run", "--steps", "1", "--crop", "16", "--batch", "2",
        "--preset", "compact", "--scale", "2", *CPU, "--set", *settings,
    )  # fmt: skip
    assert code == 0, err
    assert Path("run/model.safetensors").is_file()
    told = "".join(path.read_text() for path in Path("run").rglob("*.txt")) + out + err
    assert sum(path.name in told for path in broken) > 5


def test_serve(broken: list[Path], tiny_x2: Path) -> None:
    with running(ServeOptions(port=0, model=str(tiny_x2), engine=EngineOptions("cpu", "fp32"))) as server:
        for path in broken:
            answer = post(server, f"/v1/upscale?name={path.name}", path.read_bytes())
            assert answer.status in (200, 400, 413, 415, 422), (path.name, answer.body)
            assert b"Traceback" not in answer.body
            assert b"defect" not in answer.body
        assert post(server, "/v1/upscale", Path("photos/0.png").read_bytes()).status == 200
