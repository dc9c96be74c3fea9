"""Building the images: the steps, and the files sent to the builder. `scripts/docker-steps` runs them."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
FILES = ("Dockerfile", "Dockerfile.cuda")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("docker_steps", str(ROOT / "scripts" / "docker-steps"))
    spec = importlib.util.spec_from_loader("docker_steps", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", FILES)
def test_the_image_runs_the_program_and_not_as_root(script: ModuleType, file: str) -> None:
    steps = script.steps((ROOT / file).read_text())
    last = {kind: rest for kind, rest in steps if kind in ("USER", "ENTRYPOINT", "FROM")}
    assert last["ENTRYPOINT"] == '["srgan"]'
    assert int(last["USER"].split(":")[0]) > 0
    assert last["FROM"] == "python:3.12-slim", "the last stage has no build tools and no sources"
    made = script.Container(Path("/nowhere"), {"TORCH_INDEX": ""})
    for kind, _ in steps:
        assert hasattr(made, f"_{kind.lower()}"), f"scripts/docker-steps does not know {kind}"


def test_the_builder_gets_what_the_wheel_needs_and_no_more(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    sent = {path.as_posix() for path in script.context()}
    assert {"pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "weights/manifest.toml"} <= sent
    assert {"srgan_cli/serving/page.js", "srgan_cli/cli/serve.py"} <= sent
    assert {name.split("/")[0] for name in sent} == {
        "LICENSE", "README.md", "hatch_build.py", "pyproject.toml", "srgan_cli", "weights",
    }  # fmt: skip


def test_paths_of_the_container_are_led_into_the_folder(script: ModuleType) -> None:
    inside = script.Container(Path("/tmp/place"), {}).inside
    assert inside("python -m venv /venv && /venv/bin/pip install '/src[serve]'") == (
        "python -m venv /tmp/place/venv && /tmp/place/venv/bin/pip install '/tmp/place/src[serve]'"
    )
    assert inside("https://example.org/venv/x /srcs") == "https://example.org/venv/x /srcs"


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="needs hadolint")
def test_the_files_are_linted() -> None:
    subprocess.run(["hadolint", "-c", ".hadolint.yaml", *FILES], cwd=ROOT, check=True)


def test_both_compose_and_systemd_call_the_program_with_options_that_there_are() -> None:
    from srgan_cli.cli.serve import serve
    from srgan_cli.cli.watch import watch

    compose = (ROOT / "examples" / "docker" / "compose.yaml").read_text()
    unit = (ROOT / "examples" / "systemd" / "srgan-watch@.service").read_text()
    for text, start, command in ((compose, "command: watch", watch), (compose, "command: serve", serve),
                                 (unit, "srgan watch", watch)):  # fmt: skip
        line = text.split(start)[1].split("\n")[0]
        known = {name for param in command.params for name in param.opts}
        assert {word for word in line.split() if word.startswith("-")} <= known
    for setting in ("read_only: true", "no-new-privileges:true", "- ALL", ":/in:ro"):
        assert setting in compose
