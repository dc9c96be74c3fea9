"""`srgan evaluate` from the command line: tables, JSON, CSV, saved pictures, and invalid uses."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from srgan_cli.cli import evaluate as command
from srgan_cli.cli import main
from srgan_cli.dataset.wear import WearConfig, Wearer
from srgan_cli.dataset.wear_files import save_wear
from srgan_cli.errors import SettingsError
from srgan_cli.evaluation import session
from srgan_cli.evaluation.metrics import compare
from srgan_cli.imaging.bicubic import bicubic
from tests.faults import save_tiny
from tests.upscaling.pictures import picture

pytestmark = pytest.mark.timeout(120)

TEST_DATA = (
    Path(os.environ.get("SRGAN_TEST_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data")) / "test"
)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two tiny networks, for ×2 and ×4."""
    folder = tmp_path_factory.mktemp("weights")
    return (
        save_tiny(folder / "tiny2.safetensors", 2, features=4, seed=1),
        save_tiny(folder / "tiny4.safetensors", 4, features=4),
    )


@pytest.fixture
def srgan(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """`srgan evaluate ARGUMENTS` in this process, with a folder `high` of two pictures -> exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    picture(Path("high/a.png"), 50, 44)
    picture(Path("high/deep/b.jpg"), 48, 40)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        model = [] if "-m" in arguments else ["-m", models[1]]
        high = [] if "--hr-dir" in arguments else ["--hr-dir", "high"]
        metrics = [] if "--metrics" in arguments else ["--metrics", "none"]
        settings = [] if "--device" in arguments else ["--device", "cpu", "--precision", "fp32"]
        code = main(["evaluate", *map(str, (*model, *high, *metrics, *settings, *arguments))])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def test_the_table_has_a_row_for_each_method(srgan: Run) -> None:
    code, out, err = srgan()
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("mean of 2 pictures, ×4")
    assert [line.split()[0] for line in lines[1:]] == ["bicubic", "lanczos", "tiny4"]
    assert len({len(line) for line in lines}) == 1
    assert "NIQE" not in lines[0]
    assert "border of 4 px" in err
    assert "consistency" in err


def test_verbose_tells_each_picture(srgan: Run) -> None:
    _, out, _ = srgan("-v")
    assert [line.split()[0] for line in out.splitlines() if "PSNR" in line] == ["a.png", "deep/b.jpg", "mean"]


def test_quiet_leaves_the_table_alone(srgan: Run) -> None:
    code, out, err = srgan("-q")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 4


def test_json_holds_every_number(srgan: Run) -> None:
    code, out, _ = srgan("--json")
    found = json.loads(out)
    assert code == 0
    assert (found["scale"], found["degradation"], found["pictures"], found["border_px"]) == (4, "bicubic", 2, 4)
    assert list(found["methods"]) == ["bicubic", "lanczos", "tiny4"]
    assert (found["methods"]["tiny4"]["device"], found["methods"]["tiny4"]["precision"]) == ("cpu", "fp32")
    high = np.asarray(Pillow.open("high/a.png"))[:44, :48]
    expected = compare(bicubic(bicubic(high, 12, 11), 48, 44), high, 4)
    first = found["methods"]["bicubic"]["pictures"][0]
    assert first["name"] == "a.png"
    assert (first["psnr_y_db"], first["ssim_rgb"]) == pytest.approx((expected.psnr_y_db, expected.ssim_rgb))


def test_json_has_no_infinity(srgan: Run) -> None:
    Path("flat").mkdir()
    Pillow.new("RGB", (48, 48), (9, 9, 9)).save("flat/a.png")
    _, out, _ = srgan("--hr-dir", "flat", "--json")
    assert json.loads(out)["methods"]["bicubic"]["mean"]["psnr_y_db"] is None


def test_csv_holds_every_picture_and_the_means(srgan: Run) -> None:
    code, _, _ = srgan("--csv", "scores.csv")
    with Path("scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert code == 0
    assert [(row["method"], row["picture"]) for row in rows[:4]] == [
        ("bicubic", "a.png"), ("bicubic", "deep/b.jpg"), ("bicubic", "mean"), ("lanczos", "a.png"),
    ]  # fmt: skip
    values = [float(row["psnr_y_db"]) for row in rows[:3]]
    assert values[2] == pytest.approx((values[0] + values[1]) / 2)


def test_csv_replaces_a_table_of_its_own_and_nothing_else(srgan: Run) -> None:
    photo = Path("high/a.png").read_bytes()
    code, _, err = srgan("--csv", "high/a.png")
    assert code == 2
    assert "exists already" in err
    assert Path("high/a.png").read_bytes() == photo
    Path("scores.csv").touch()
    for _ in range(2):
        assert srgan("--csv", "scores.csv")[0] == 0


def test_models_stand_side_by_side_under_names_that_differ(srgan: Run, models: tuple[Path, Path]) -> None:
    runs = []
    for number in (1, 2):
        runs.append(Path(f"runs/{number}"))
        runs[-1].mkdir(parents=True)
        save_tiny(runs[-1] / "model.safetensors", 4, features=4, seed=number)
    _, out, _ = srgan("-m", models[1], "-m", runs[0], "-m", runs[1], "--json", "--save", "kept")
    assert list(json.loads(out)["methods"])[2:] == ["tiny4", "runs/1", "runs/2"]
    assert sorted(path.name for path in Path("kept").iterdir()) == [
        "bicubic", "lanczos", "low", "runs-1", "runs-2", "tiny4",
    ]  # fmt: skip


def test_a_model_called_low_has_a_folder_of_its_own(srgan: Run) -> None:
    save_tiny(Path("low.safetensors"), 4, features=4)
    Path("model.safetensors").write_bytes(Path("low.safetensors").read_bytes())
    assert srgan("-m", "low.safetensors", "--save", "kept")[0] == 0
    assert sorted(path.name for path in Path("kept").iterdir()) == ["bicubic", "lanczos", "low", "low (2)"]
    assert srgan("-m", ".", "-m", "low.safetensors", "--save", "again")[0] == 0  # each typed, since both are called low
    found = sorted(path.name for path in Path("again").iterdir())
    assert found == ["bicubic", "lanczos", "low", "low.safetensors", "model"]


def test_the_pictures_that_were_measured_are_kept(srgan: Run) -> None:
    code, out, _ = srgan("--save", "kept", "--json")
    scores = json.loads(out)["methods"]["tiny4"]["pictures"][1]
    kept = np.asarray(Pillow.open("kept/tiny4/deep/b.png"))
    high = np.asarray(Pillow.open("high/deep/b.jpg"))
    assert code == 0
    assert scores["psnr_y_db"] == pytest.approx(compare(kept, high, 4).psnr_y_db, abs=0.3)  # Pillow's JPEG decoder
    # Stored values can be passed in again, and the scores are the same.
    _, again, _ = srgan("--lr-dir", "kept/low", "--json")
    assert json.loads(again)["methods"] == json.loads(out)["methods"]
    assert json.loads(again)["degradation"] == "given"
    assert srgan("--save", "kept")[0] == 2


def test_two_pictures_never_become_one(srgan: Run) -> None:
    picture(Path("high/a.jpg"), 48, 40)
    code, _, err = srgan("--save", "kept")
    assert code == 2
    assert "two pictures" in err


def test_the_photo_degradation_is_harder_and_the_same_each_time(srgan: Run) -> None:
    plain, first, second = (
        json.loads(srgan("--json", *options)[1])["methods"]["bicubic"]["mean"]
        for options in ((), ("--degradation", "photo"), ("--degradation", "photo"))
    )
    assert first == second
    assert first["psnr_y_db"] < plain["psnr_y_db"]


def wear(path: Path, scale: int = 4, strength: float = 0.25, *, grey: bool = False) -> None:
    """A run that has learned to lay `exp(10 · strength)` levels of noise over bicubic low pictures."""
    torch.manual_seed(0)
    wearer = Wearer(WearConfig(scale, features=4, blocks=1))
    with torch.no_grad():
        wearer.grain_strength.fill_(strength)
    save_wear(path, wearer, (), grey=grey)


def test_a_runs_wear_is_laid_over_every_picture(srgan: Run) -> None:
    for number in range(8):
        picture(Path(f"many/{number}.png"), 48, 40, seed=number)
    Path("run").mkdir()
    wear(Path("run/wear.safetensors"))
    plain, first, second = (
        json.loads(srgan("--hr-dir", "many", "--json", "--metrics", "none", *options)[1])
        for options in ((), ("--degradation", "run", "--save", "kept"), ("--degradation", "run/wear.safetensors"))
    )
    assert first["degradation"] == "run"
    assert first["methods"] == second["methods"]
    assert len(first["methods"]["bicubic"]["pictures"]) == 8
    for number in range(8):
        high, low = (np.asarray(Pillow.open(f"{where}/{number}.png")) for where in ("many", "kept/low"))
        assert 6 < (low - bicubic(high, 12, 10).astype(float)).std() < 18
    means = [found["methods"]["bicubic"]["mean"]["psnr_y_db"] for found in (plain, first)]
    assert means[1] < means[0] - 0.05  # they are noise as it is


def test_wear_learned_without_colours_is_laid_over_grey_versions(srgan: Run) -> None:
    for number in range(2):
        picture(Path(f"many/{number}.png"), 48, 40, seed=number)
    wear(Path("many/wear.safetensors"), grey=True)
    code, out, err = srgan(
        "--hr-dir", "many", "--metrics", "none", "--degradation", "many/wear.safetensors", "--save", "k"
    )
    assert code == 0
    assert "compared in grey" in " ".join((out + err).split())
    for name in ("0", "1"):
        with Pillow.open(f"k/low/{name}.png") as low:
            assert low.mode == "L"


def test_a_run_without_fitting_wear_says_so(srgan: Run) -> None:
    for name in ("empty", "other", "damaged"):
        Path(name).mkdir()
    wear(Path("other/wear.safetensors"), scale=2)
    wear(Path("damaged/wear.safetensors"))
    whole = Path("damaged/wear.safetensors").read_bytes()
    Path("damaged/wear.safetensors").write_bytes(whole[:-40])
    for name, code, words in (
        ("empty", 2, "a run that has learned wear (it holds no wear.safetensors)"),
        ("foto", 2, "neither bicubic nor photo nor a run that has learned wear (there is no such folder or file)"),
        ("other", 2, "learned for low pictures 2 times smaller than the sharp ones, and here they are 4 times smaller"),
        ("damaged", 4, "damaged/wear.safetensors"),
        ("", 2, "neither bicubic nor photo"),
    ):
        found, out, err = srgan("--degradation", name)
        assert (found, out) == (code, ""), (name, err)
        assert words in " ".join(err.split())


def test_grey_pictures_are_compared_as_they_are(srgan: Run) -> None:
    picture(Path("grey/g.png"), 48, 48, "L")
    found = json.loads(srgan("--hr-dir", "grey", "--json")[1])["methods"]["bicubic"]["mean"]
    assert found["psnr_y_db"] == found["psnr_rgb_db"]
    assert srgan("--hr-dir", "grey", "--degradation", "photo")[0] == 0
    wear(Path("wear.safetensors"))
    assert srgan("--hr-dir", "grey", "--degradation", "wear.safetensors")[0] == 0


def test_a_family_is_asked_for_the_scale_that_all_have(srgan: Run, models: tuple[Path, Path]) -> None:
    assert json.loads(srgan("-m", models[0], "--json")[1])["scale"] == 2


def test_niqe_is_measured_where_a_picture_is_large_enough(srgan: Run) -> None:
    picture(Path("high/large.png"), 200, 200)
    code, out, _ = srgan("--metrics", "niqe", "--json")
    pictures = json.loads(out)["methods"]["bicubic"]["pictures"]
    assert code == 0
    assert [one["name"] for one in pictures if "niqe" in one] == ["large.png"]
    assert "NIQE" in srgan("--metrics", "niqe")[1]


def test_the_best_number_is_bold_at_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"bicubic": {"psnr_y_db": 20.0, "niqe": 5.0}, "mine": {"psnr_y_db": 21.0, "niqe": 6.0}}
    columns = {column.key: column for column in command._COLUMNS}
    everyone = list(values.values())

    def bold(key: str, method: str) -> bool:
        return "\033[1m" in command._cell(columns[key], values[method], everyone)

    assert (bold("psnr_y_db", "bicubic"), bold("psnr_y_db", "mine")) == (False, True)
    assert (bold("niqe", "bicubic"), bold("niqe", "mine")) == (True, False)
    command._table("title", {"mine": {"psnr_y_db": math.inf}, "other": {"ssim_y": 0.5}})
    assert "inf" in capsys.readouterr().out


def test_progress_is_one_line_that_goes_away(
    srgan: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "sys", SimpleNamespace(stderr=SimpleNamespace(isatty=lambda: True)))
    _, _, err = srgan()
    assert err.startswith("\r1/2 a.png\r2/2 deep/b.jpg\rPSNR")  # less the codes that clear the line: this is a pipe


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--hr-dir", "none"), 2, "--hr-dir none does not exist"),
        (("--hr-dir", ""), 2, "it is empty"),
        (("--hr-dir", "high/a.png"), 2, "is a file; give a folder"),
        (("--hr-dir", "nothing"), 3, "there are no pictures in nothing"),
        (("--lr-dir", "none"), 2, "--lr-dir none does not exist"),
        (("--lr-dir", "other"), 3, "has the name of one in high"),
        (("--lr-dir", "half"), 3, r"should be 12x11 px \(these are a pair for --scale 2\)"),
        (("--lr-dir", "half", "--degradation", "photo"), 2, "give one of the two"),
        (("--scale", "3"), 2, "--scale 3 .* enlarges 4 times"),
        (("--scale", "1"), 2, "between 2 and 16"),
        (("-m", "nobody"), 4, "no model called 'nobody'"),
        (("--metrics", "fid"), 2, "unknown metric 'fid'"),
        (("--vgg-weights", "none.pth"), 4, "vgg19: none.pth"),
        (("--csv", "none/a.csv"), 2, "--csv none/a.csv"),
        (("--save", "high"), 2, "not empty"),
        (("--device", "cuda:77"), 5, "cuda:77"),
    ],
)
def test_mistakes_are_told(srgan: Run, arguments: tuple[str, ...], code: int, says: str) -> None:
    Path("nothing").mkdir()
    picture(Path("other/z.png"), 12, 11)
    picture(Path("half/a.png"), 25, 22)
    picture(Path("half/deep/b.png"), 24, 20)
    if "--vgg-weights" in arguments:
        arguments = (*arguments, "--metrics", "vgg19")
    found, out, err = srgan(*arguments)
    assert found == code, err
    assert out == ""
    assert re.search(says, err), err


def test_originals_and_small_pictures_may_be_in_one_folder_if_their_names_differ(srgan: Run) -> None:
    for low_dir in ("high", "high/deep/.."):
        code, _, err = srgan("--lr-dir", low_dir)
        assert code == 2
        assert "--hr-dir and --lr-dir are the same folder, high, and no two names in it" in err
    Path("high/deep/b.jpg").unlink()
    picture(Path("high/ax4.png"), 12, 11)
    for low_dir in ("high", "high/deep/.."):
        code, out, err = srgan("--lr-dir", low_dir, "--json")
        report = json.loads(out)["methods"]["bicubic"]
        assert (code, [one["name"] for one in report["pictures"]]) == (0, ["a.png"]), err


def test_models_of_different_scales_cannot_be_compared(srgan: Run, models: tuple[Path, Path]) -> None:
    code, _, err = srgan("-m", models[0], "-m", models[1])
    assert code == 2
    assert "enlarges 2 times" in err
    assert "enlarges 4 times" in err


def test_a_picture_that_cannot_be_used_is_left_out_and_told(srgan: Run) -> None:
    Path("high/bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    picture(Path("high/tiny.png"), 12, 12)
    code, out, err = srgan("--json")
    assert code == 1
    assert json.loads(out)["pictures"] == 2
    assert len(json.loads(out)["failures"]) == 2
    assert err.count("left out: ") == 2


def test_the_command_and_the_library_agree_on_names() -> None:
    from srgan_cli.evaluation import further

    assert command._METRICS == further.NAMES
    with pytest.raises(SettingsError):
        session.EvaluateOptions(Path(), models=())


def test_the_published_bicubic_row(srgan: Run) -> None:
    folder = TEST_DATA / "Set5" / "x4" / "high"
    if not folder.is_dir():
        pytest.skip("the test pictures are not here; SRGAN_TEST_DATA says where they are")
    found = json.loads(srgan("--hr-dir", folder, "--json")[1])["methods"]["bicubic"]["mean"]
    assert found["psnr_y_db"] == pytest.approx(28.42, abs=0.01)
    assert found["ssim_y"] == pytest.approx(0.8104, abs=0.0005)
