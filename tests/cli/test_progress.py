"""The output during and after a run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli import wording
from srgan_cli.cli import console, main
from srgan_cli.cli.estimate import Estimate
from srgan_cli.engine import bands
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.upscaling.inputs import Failure
from srgan_cli.upscaling.plan import Job
from tests.faults import at_call
from tests.upscaling.pictures import picture

pytestmark = pytest.mark.usefixtures("here")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def begun(picture_px: int) -> tuple[Clock, Estimate]:
    """Of 1000 px in all, at an unknown speed; the first picture has begun, at 0 s."""
    clock = Clock()
    estimate = Estimate(1000, None, clock=clock)
    estimate.started("a", picture_px)
    return clock, estimate


@pytest.mark.parametrize(
    ("pixels", "words"),
    [(0, "0.0 MP"), (1, "0.0001 MP"), (12_288, "0.012 MP"), (950_000, "0.95 MP"), (14.8e6, "14.8 MP")],
)
def test_pixels_are_never_rounded_to_none(pixels: float, words: str) -> None:
    assert wording.megapixels(pixels) == words


def test_an_estimate_moves_while_the_engine_is_silent_and_never_goes_back() -> None:
    clock = Clock()
    estimate = Estimate(1000, 100.0, 2.0, clock=clock)
    assert estimate.is_loading
    assert estimate.seconds_left() == 12
    clock.now = 1
    assert estimate.seconds_left() == 11
    clock.now = 3
    estimate.started("a", 400)
    seen = []
    for clock.now in (3, 4, 5, 6, 7, 20):
        seen.append(estimate.px())
    assert seen == [0, 100, 200, 300, 360, 360]  # at most nine tenths of the picture
    estimate.advanced("a", 400)
    assert estimate.px() == 400
    assert estimate.px_per_second() == pytest.approx(400 / 17)
    estimate.started("b", 600)
    estimate.failed("b", 600)
    assert estimate.fraction() == 1


def test_without_a_known_speed_nothing_is_claimed() -> None:
    clock, estimate = begun(1000)
    clock.now = 50
    assert (estimate.px(), estimate.seconds_left(), estimate.fraction()) == (0, None, 0)
    estimate.advanced("a", 500)
    clock.now = 60
    assert estimate.seconds_left() == pytest.approx(40)


def test_parts_of_a_picture_that_are_not_final_count_for_progress_and_speed() -> None:
    clock, estimate = begun(1000)
    clock.now = 0.5
    estimate.computed("a", 20)
    assert (estimate.px(), estimate.seconds_left()) == (20, None), "too early to say"
    clock.now = 4
    estimate.computed("a", 200)
    assert estimate.seconds_left() == pytest.approx(16)
    clock.now = 5
    assert estimate.px() == pytest.approx(250)
    estimate.computed("a", 100)  # a tile is computed again
    assert estimate.px() == pytest.approx(250), "it never goes back"
    clock.now = 10
    estimate.advanced("a", 500)
    assert estimate.px() == 500
    assert estimate.seconds_left() == pytest.approx(10)
    estimate.computed("a", 400)
    assert estimate.fraction() == pytest.approx(0.9)
    estimate.started("a", 1000)  # again, since its worker has ended
    assert (estimate.px(), estimate.final_px("a")) == (0, 0)


def test_what_an_earlier_run_made_is_no_speed() -> None:
    clock, estimate = begun(1000)
    clock.now = 0.001
    estimate.resumed("a", 600)
    clock.now = 5
    assert (estimate.px(), estimate.seconds_left()) == (600, None)
    estimate.advanced("a", 100)
    assert estimate.px_per_second() == pytest.approx(20)
    assert estimate.seconds_left() == pytest.approx(15)
    clock.now = 30
    assert estimate.px() == pytest.approx(970), "at most nine tenths of what is left"


def test_pictures_in_progress_at_once_keep_their_own_parts() -> None:
    clock, estimate = begun(400)
    estimate.started("b", 400)
    estimate.resumed("b", 300)
    clock.now = 4
    estimate.computed("a", 120)
    estimate.computed("b", 80)
    assert (estimate.px(), estimate.px_per_second()) == (500, 50)
    clock.now = 5
    estimate.advanced("b", 100)
    assert estimate.px() == 520, "what is computed of the other stays"
    assert estimate.px_per_second() == pytest.approx(44)
    clock.now = 60
    assert estimate.px() == pytest.approx(520 + 0.9 * 280), "of what is left in it"
    estimate.started("b", 400)  # again, since its worker has ended: what an earlier run left is gone too
    assert estimate.px() == pytest.approx(120 + 0.9 * 680)
    estimate.failed("b", 400)
    estimate.failed("c", 200)  # never begun
    assert estimate.total_px == 400


def test_a_picture_that_fails_does_not_take_back_the_progress_of_another() -> None:
    clock, estimate = begun(800)
    clock.now = 4
    estimate.computed("a", 400)
    estimate.failed("b", 200)  # the next one, while it was read
    assert (estimate.px(), estimate.fraction()) == (400, 0.5)
    clock.now = 6
    estimate.computed("a", 600)
    assert estimate.px() == 600
    estimate.failed("a", 800)
    assert estimate.px() == 0


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def srgan(model: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: Any) -> tuple[int, str]:
        code = main(["upscale", "-m", str(model), "--device", "cpu", "--precision", "fp32", *map(str, arguments)])
        return code, capsys.readouterr().err

    return run


def test_a_log_file_gets_lines(srgan: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "LINE_SECONDS", 0.05)
    real = Upscaler.upscale_rows

    def slow(*args: Any, **options: Any) -> None:
        time.sleep(0.2)
        real(*args, **options)

    monkeypatch.setattr(Upscaler, "upscale_rows", slow)
    picture(here / "in/a.png")
    picture(here / "in/b.png")
    code, err = srgan("in", "-o", "out/")
    assert code == 0, err
    assert "1/2 a.png, 0%" in err
    assert "2/2 b.png, " in err
    assert "a.png" not in srgan("in", "-o", "out/", "--overwrite", "--quiet")[1]


def test_the_first_picture_ever_shows_its_progress_before_it_is_done(
    model: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bands, "FOLLOWED_PX", 1)
    monkeypatch.setattr(console, "_EVENT_SECONDS", 0.0)
    computed = console.Watch.computed

    def again(watch: console.Watch, job: Job, network_pixels: int) -> None:
        for px in (network_pixels, network_pixels // 2):  # as if a tile were computed again
            computed(watch, job, px)

    monkeypatch.setattr(console.Watch, "computed", again)
    picture(here / "a.png", 64, 48)
    assert main(["upscale", "-m", str(model), "--device", "cpu", "a.png", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    done = [event["done"] for event in events if event["event"] == "progress"]
    total = 64 * 48 * 16
    assert done == sorted(done)
    assert done[-1] == total
    assert sum(0 < px < total for px in done) >= 3


def test_a_failure_beside_a_picture_leaves_its_progress_alone(
    model: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "FOLLOWED_PX", 1)
    for name in ("a.png", "b.png"):
        picture(here / name, 64, 48)
    computed = console.Watch.computed
    shown: list[float] = []

    def noted(watch: console.Watch, job: Job, network_pixels: int) -> None:
        computed(watch, job, network_pixels)
        if job.source.name == "a.png":
            if len(shown) == 3:
                watch.failed(Failure(Path("b.png"), "as if it could not be read ahead"))
            shown.append(watch._estimate.px())

    monkeypatch.setattr(console.Watch, "computed", noted)
    assert main(["upscale", "-m", str(model), "--device", "cpu", "a.png", "b.png"]) == 0
    assert len(shown) > 5
    assert shown == sorted(shown)
    assert shown[-1] == 64 * 48 * 16


def test_success_names_its_file(srgan: Run, here: Path) -> None:
    picture(here / "a.png", 20, 10)
    assert srgan("a.png")[1].startswith("a_x4.png: 80×40, ")
    assert srgan("a.png", "-o", "deep/b.png")[1].startswith("deep/b.png: 80×40, ")


def test_an_interrupted_run_names_resume(srgan: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(here / "in" / name)

    def interrupted(*_args: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Upscaler, "upscale_rows", at_call(2, Upscaler.upscale_rows, interrupted))
        code, err = srgan("in", "-o", "out/")
    assert code == 130
    assert "the same command with --resume resumes from here" in err
    assert srgan("in", "-o", "out/", "--resume")[0] == 0


def test_a_dry_run_shows_the_notes_of_the_pictures(here: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [Pillow.fromarray(np.full((9, 12, 3), shade, np.uint8)) for shade in (0, 100, 200)]
    for name in ("a.tif", "b.tif"):
        frames[0].save(name, save_all=True, append_images=frames[1:])
    assert main(["upscale", "a.tif", "b.tif", "-o", "out/", "-n", "--page", "1", "-m", str(model)]) == 0
    out = capsys.readouterr().out
    assert out.count("first of 3") == 1
    assert "a.tif and 1 more: " in out
    assert "memory: about" in out


def test_a_damaged_picture_need_not_be_given_up(srgan: Run, here: Path) -> None:
    whole = picture(here / "a.jpg", 48, 36).read_bytes()
    (here / "a.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    code, err = srgan("a.jpg", "-o", "b.png")
    assert code == 3
    assert "note: --accept-damaged uses what can be decoded" in err
    code, err = srgan("a.jpg", "-o", "b.png", "--accept-damaged")
    assert code == 1
    assert "--accept-damaged" not in err
    (here / "a.jpg").write_bytes(b"text")
    assert "--accept-damaged" not in srgan("a.jpg", "-o", "c.png")[1]
