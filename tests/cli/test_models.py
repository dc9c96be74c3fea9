"""`srgan models` lists and describes models for people and for programs, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from srgan_cli.cli import main
from srgan_cli.cli import models as command
from srgan_cli.errors import SrganError, WeightsError
from srgan_cli.networks import library, registry
from tests.faults import save_tiny


def run(*arguments: str) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(command.models, arguments)


@pytest.fixture
def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights folder, with its one file changed at the end."""
    shutil.copytree(registry.weights_folder(), tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(registry, "weights_folder", lambda: tmp_path)
    with (tmp_path / "fidelity-x4.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    return tmp_path


def test_list_is_one_line_a_model_when_piped() -> None:
    lines = run("list").splitlines()
    assert [line.split("\t")[0] for line in lines] == [entry.name for entry in registry.entries()]
    assert all(len(line.split("\t")) == 6 for line in lines)


def test_list_is_a_table_at_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "dumb")
    command.models(["list"], standalone_mode=False)
    out = capsys.readouterr().out
    assert "What it is for" in out
    assert "fidelity-x4" in out
    assert "1,249,136" in out
    assert "\t" not in out


def test_list_as_json() -> None:
    listed = json.loads(run("list", "--json"))
    assert [model["name"] for model in listed] == [entry.name for entry in registry.entries()]
    default = next(model for model in listed if model["name"] == "fidelity-x4")
    assert (default["scale"], default["adversarial"], default["licence"]) == (4, False, "MIT")
    assert Path(default["path"]).is_file()


def test_info_by_name_and_by_family() -> None:
    text = run("info", "fidelity-x4")
    score = str(registry.find("fidelity-x4").scores["Set5"]["psnr_y_db"])
    for words in ("fidelity-x4", "×4", "compact (scale 4, features 64, blocks 16)", score, "MIT", "1,249,136"):
        assert words in text
    families = json.loads(run("info", "fidelity", "--json"))
    assert [model["name"] for model in families] == [entry.name for entry in registry.family("fidelity")]


def test_info_about_a_file_and_a_run_folder(tmp_path: Path) -> None:
    shutil.copy(registry.find("fidelity").path, tmp_path / "model.safetensors")
    for source in (tmp_path, tmp_path / "model.safetensors"):
        assert json.loads(run("info", str(source), "--json"))[0]["path"] == str(tmp_path / "model.safetensors")


def test_a_strangers_file_does_not_speak_to_the_terminal(tmp_path: Path) -> None:
    source = registry.find("fidelity").path
    header = registry.read_weights_header(source)
    recipe = json.dumps({"note": "\x1b[2Jgone"})
    text = json.dumps({"__metadata__": {**header.metadata, "recipe": recipe}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    assert "note ?[2Jgone" in run("info", str(tmp_path / "a.safetensors"))


def test_path() -> None:
    assert run("path", "fidelity-x4") == f"{registry.find('fidelity-x4').path}\n"
    assert len(run("path", "fidelity").splitlines()) == len(registry.family("fidelity"))
    assert json.loads(run("path", "fidelity-x4", "--json")) == [str(registry.find("fidelity-x4").path)]


def test_verify() -> None:
    assert "fidelity-x4\tok" in run("verify").splitlines()
    assert all(check["ok"] for check in json.loads(run("verify", "--json")))


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_verify_shows_all_and_then_fails(damaged: Path, flags: list[str]) -> None:
    result = invoke("verify", *flags)
    assert isinstance(result.exception, WeightsError)
    assert "fidelity-x4: changed since it was installed" in str(result.exception)
    assert "SHA-256" in result.stdout
    if flags:
        assert {c["name"] for c in json.loads(result.stdout) if not c["ok"]} == {"fidelity-x4"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("info", "fidelty"), "did you mean 'fidelity'"),
        (("path", "none"), "no model called 'none'"),
        (("info", "no/such/file.pth"), "there is no file"),
    ],
)
def test_mistakes_are_sentences(arguments: tuple[str, ...], words: str) -> None:
    error = invoke(*arguments).exception
    assert isinstance(error, SrganError)
    assert error.exit_code == 4
    assert words in str(error)


def test_nothing_can_be_said_about_another_programs_file(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"x")
    error = invoke("info", str(tmp_path / "a.pth")).exception
    assert isinstance(error, WeightsError)
    assert "another program" in str(error)


def test_no_command_imports_torch() -> None:
    code = (
        "import sys\n"
        "from srgan_cli.cli.models import models\n"
        "for arguments in (['list'], ['list', '--json'], ['verify'], ['path', 'fidelity-x4'], ['info', 'fidelity']):\n"
        "    models(arguments, standalone_mode=False)\n"
        "assert 'torch' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model file, and a folder for models of one's own."""
    monkeypatch.setattr(library, "data_folder", lambda: tmp_path / "data")
    return save_tiny(tmp_path / "photos-x2.safetensors", 2)


def test_own_models_are_added_listed_described_checked_and_removed(own: Path) -> None:
    assert run_noting("add", str(own), "--licence", "CC0-1.0").startswith("photos-x2  ×2, compact, ")
    assert run("list").splitlines()[-1].split("\t")[:4] == ["photos-x2", "×2", "own (srgan)", "2,860"]
    listed = json.loads(run("list", "--json"))[-1]
    assert (listed["name"], listed["family"], listed["licence"], listed["own"]) == (
        "photos-x2",
        "photos",
        "CC0-1.0",
        True,
    )
    facts = run("info", "photos")
    assert "CC0-1.0" in facts
    assert str(own) in facts
    assert json.loads(run("info", "photos-x2", "--json"))[0]["sha256"] == listed["sha256"]
    path = Path(run("path", "photos").strip())
    assert path.read_bytes() == own.read_bytes()
    assert run("verify").splitlines()[-1] == "photos-x2\tok"
    path.write_bytes(b"other")
    result = invoke("verify")
    assert isinstance(result.exception, WeightsError)
    assert "photos-x2: changed since it was added" in str(result.exception)
    assert "photos-x2\tphotos-x2.safetensors is not the file that was added" in result.stdout
    run("remove", "photos-x2")
    assert "photos-x2" not in run("list")


def test_a_path_of_any_characters_stays_one_line(own: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a\nb\t\x1b[2J"
    folder.mkdir()
    run_noting("add", str(own.rename(folder / own.name)), "--licence", "CC0-1.0")
    *_, source = run("list").splitlines()[-1].split("\t")
    assert source.endswith("a\\nb\\t\ufffd[2J/photos-x2.safetensors")


def run_noting(*arguments: str) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_an_unknown_licence_is_noted(own: Path) -> None:
    result = invoke("add", str(own), "--json")
    assert json.loads(result.stdout)["name"] == "photos-x2"
    assert "licence is not known" not in result.stderr, "not for programs"
    assert "licence is not known" in invoke("add", str(own), "--name", "b").stderr


def test_bundled_models_stay(own: Path) -> None:
    result = invoke("remove", "fast-x4")
    assert "comes with srgan" in str(result.exception)


def test_own_models_upscale(own: Path, tmp_path: Path) -> None:
    invoke("add", str(own))
    example = Path(__file__).parents[2] / "examples" / "cat.jpg"
    assert main(["upscale", str(example), "-o", str(tmp_path / "o.png"), "-m", "photos", "--scale", "2", "-q"]) == 0
    assert (tmp_path / "o.png").exists()
    assert main(["upscale", str(example), "-o", str(tmp_path / "o.png"), "-m", "phots"]) == 4
