"""The bundled models, valid headers, and hostile ones, which are only ever one sentence."""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srgan_cli.errors import WeightsError
from srgan_cli.networks import registry
from srgan_cli.networks.registry import Card, Entry

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def safetensors_bytes(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder with a family of two scales and one model of its own."""
    for name, family, scale in (("soft-x2", "soft", 2), ("soft-x4", "soft", 4), ("odd", "odd-family", 3)):
        card = Card(name=name, family=family, licence="MIT", recipe={"steps": 3, "note": 'say "ä\\n"', "none": None})
        metadata = registry.metadata_of(card, "compact", {"scale": scale}, scale, 7)
        tensors = {"tail.bias": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
        (tmp_path / f"{name}.safetensors").write_bytes(
            safetensors_bytes({"__metadata__": metadata, **tensors}, b"1234")
        )
    (tmp_path / "manifest.toml").write_text(registry.manifest(tmp_path), encoding="utf-8")
    monkeypatch.setattr(registry, "weights_folder", lambda: tmp_path)
    return tmp_path


def test_the_bundled_models_are_whole_and_the_manifest_is_theirs() -> None:
    assert registry.entries()
    assert [check for check in registry.verify() if not check.ok] == []
    folder = registry.weights_folder()
    assert (folder / "manifest.toml").read_text(encoding="utf-8") == registry.manifest(folder)
    for entry in registry.entries():
        assert entry.path.stat().st_size <= 4 << 20
        assert (folder / f"{entry.name}.md").is_file(), "each model has a card"
        assert entry.licence == "MIT"
        assert entry.name == f"{entry.family}-x{entry.scale}"


def test_the_default_model_is_there() -> None:
    entry = registry.find("fidelity")
    assert (entry.scale, entry.architecture, entry.adversarial, entry.parameters) == (4, "compact", False, 1_249_136)
    assert entry.scores["Set5"]["psnr_y_unrounded_db"] >= 31.75, "what it must reach"
    assert str(entry.recipe["command"]).startswith("srgan train --hr-dir")


def test_a_manifest_says_what_the_files_say(bundled: Path) -> None:
    tables = tomllib.loads((bundled / "manifest.toml").read_text(encoding="utf-8"))["model"]
    assert [table["name"] for table in tables] == ["odd", "soft-x2", "soft-x4"]
    assert tables[0]["recipe"] == {"steps": 3, "note": 'say "ä\\n"'}
    assert [entry.path for entry in registry.entries()] == [bundled / table["file"] for table in tables]


def test_a_family_is_all_its_scales(bundled: Path) -> None:
    assert [entry.scale for entry in registry.family("soft")] == [2, 4]
    assert [entry.name for entry in registry.family("soft-x2")] == ["soft-x2"]


@pytest.mark.parametrize(
    ("scale", "name"), [(None, "soft-x4"), (1.5, "soft-x2"), (2, "soft-x2"), (2.1, "soft-x4"), (9, "soft-x4")]
)
def test_a_family_is_asked_for_the_scale_that_is_enough(bundled: Path, scale: float | None, name: str) -> None:
    assert registry.find("soft", scale).name == name
    assert registry.find("odd-family", scale).name == "odd"


def test_an_unknown_name_is_told_what_there_is(bundled: Path) -> None:
    with pytest.raises(WeightsError, match=r"called 'sotf' \(did you mean 'soft'\?\); there are odd-family, soft"):
        registry.find("sotf")
    with pytest.raises(WeightsError, match="no model called 'zzzzzz'; there are"):
        registry.resolve("zzzzzz")


def test_names_files_and_run_folders_resolve(bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.resolve("soft", 2)[0] == bundled / "soft-x2.safetensors"
    assert registry.resolve("soft-x4")[1] == registry.find("soft-x4")
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(WeightsError, match=r"folder without a model\.safetensors"):
        registry.resolve(run)
    (run / "model.safetensors").write_bytes(b"x")
    assert registry.resolve(str(run)) == (run / "model.safetensors", None)
    assert registry.resolve(run / "model.safetensors") == (run / "model.safetensors", None)
    # A bundled name takes precedence over a folder in the working directory; a path with a separator is a folder.
    monkeypatch.chdir(tmp_path)
    run.rename(tmp_path / "soft")
    assert registry.resolve("soft")[1] is not None
    assert registry.resolve("./soft") == (Path("soft/model.safetensors"), None)


@pytest.mark.parametrize("source", ["no/such", "none.pth", "none.safetensors", Path("none"), "x" * 5000, "a\0b"])
def test_a_missing_file_is_a_sentence(source: str | Path) -> None:
    with pytest.raises(WeightsError):
        registry.resolve(source)


def test_verify_finds_what_is_missing_or_changed(bundled: Path) -> None:
    (bundled / "soft-x2.safetensors").unlink()
    with (bundled / "soft-x4.safetensors").open("ab") as file:
        file.write(b"!")
    checks = {check.entry.name: check for check in registry.verify()}
    assert checks["odd"].ok
    assert checks["odd"].reason == ""
    assert checks["soft-x2"].reason == "cannot be read: No such file or directory"
    assert "SHA-256" in checks["soft-x4"].reason
    assert not checks["soft-x4"].ok


@pytest.mark.parametrize(
    "text",
    [
        "[[model]",
        "[[model]]\nname = 'a'",
        "[[model]]\nfile = '../../etc/passwd'",
        "[[model]]\nfile = 'a'\nsurprise = 1",
        "model = 3",
        "model = [3]",
    ],
)
def test_a_damaged_manifest_is_a_sentence(bundled: Path, text: str) -> None:
    (bundled / "manifest.toml").write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"manifest\.toml is damaged"):
        registry.entries()


@pytest.mark.parametrize("name", ["", "../../x", "a/b", ".hidden", "a\nb", "\x1b[31mred", "x" * 101, "C:evil"])
def test_a_name_is_fit_for_a_file_and_a_terminal(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError):
        Card(name=name, family="a")
    metadata = registry.metadata_of(Card(name="good", family="a"), "compact", {}, 4, 0)
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors_bytes({"__metadata__": {**metadata, "name": name}}))
    with pytest.raises(WeightsError, match="damaged"):
        registry.describe_file(path)


def test_the_manifest_is_written_by_a_command_without_torch() -> None:
    code = "import sys, runpy; runpy.run_module('srgan_cli.networks.registry', run_name='__main__')\n"
    code += "assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == (registry.weights_folder() / "manifest.toml").read_bytes()


def test_a_file_describes_itself(bundled: Path) -> None:
    entry = registry.describe_file(bundled / "odd.safetensors")
    assert isinstance(entry, Entry)
    assert (entry.name, entry.scale, entry.parameters, entry.config) == ("odd", 3, 7, {"scale": 3})
    assert json.loads(json.dumps(entry.as_dict()))["file"] == "odd.safetensors"


def test_another_programs_file_is_foreign(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors_bytes({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234"))
    assert registry.describe_file(path) is None
    assert registry.describe_file(tmp_path / "a.pth") is None


GOOD_TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
DAMAGED = {
    "empty": b"",
    "text": b"not a model at all",
    "short": b"\x01\x02",
    "length beyond the file": struct.pack("<Q", 100) + b"{}",
    "length beyond all memory": struct.pack("<Q", 2**63) + b"{}",
    "no json": struct.pack("<Q", 4) + b"{{{{",
    "no utf-8": struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc",
    "deep": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "long number": struct.pack("<Q", 10_006) + b'{"a":' + b"9" * 10_000 + b"}",
    "a list": safetensors_bytes([1, 2]),
    "metadata of numbers": safetensors_bytes({"__metadata__": {"a": 1}}),
    "metadata a list": safetensors_bytes({"__metadata__": ["a"]}),
    "tensor without shape": safetensors_bytes({"a": {"dtype": "F32"}}),
    "shape of words": safetensors_bytes({"a": {**GOOD_TENSOR, "shape": ["x"]}}, b"1234"),
    "infinite shape": safetensors_bytes({"a": {**GOOD_TENSOR, "shape": [float("inf")]}}, b"1234"),
    "no offsets": safetensors_bytes({"a": {**GOOD_TENSOR, "data_offsets": []}}, b"1234"),
    "truncated": safetensors_bytes({"a": GOOD_TENSOR}, b"123"),
    "too long": safetensors_bytes({"a": GOOD_TENSOR}, b"12345"),
    "newer": safetensors_bytes({"__metadata__": {"srgan_format": "2"}}),
    "card torn": safetensors_bytes({"__metadata__": {"srgan_format": "1", "config": "{}"}}),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_a_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"bad\.safetensors"):
        registry.describe_file(path)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=60), prefix=st.booleans())
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes, prefix: bool) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(struct.pack("<Q", len(data)) + data if prefix else data)
    with contextlib.suppress(WeightsError):
        registry.describe_file(path)
