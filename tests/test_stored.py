"""srgan's own files with unexpected contents: ignored, or one sentence, but never a traceback or a hang."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from srgan_cli import stored
from srgan_cli.dataset.scan import _Memory
from srgan_cli.errors import SettingsError
from srgan_cli.runlog.record import read_log
from srgan_cli.runlog.report import write_report
from srgan_cli.training_config import TrainConfig
from srgan_cli.training_presets import from_mapping, parse_value, read_toml, to_toml
from srgan_cli.upscaling import pace
from srgan_cli.upscaling.journal import Journal
from srgan_cli.upscaling.ledger import Ledger, identity
from srgan_cli.upscaling.record_storage import FILE_NAME

DEEP = 200_000
VALUES = (
    "[" * DEEP, '{"a":' * DEEP, "[" * DEEP + "]" * DEEP, "Infinity", "-Infinity", "NaN", "1e400", "-1e400", "9" * 30,
    "9" * 5000, "-1", "1.5", '"1"', "true", "null", "[]", "{}", '"\\ud800"',
)  # fmt: skip
FILES = (b"", b"\xff\xfe\0", b"null", b"[]", b"3", b'"text"', *(value.encode() for value in VALUES))


def test_json_is_a_plain_value_or_a_value_error() -> None:
    assert stored.json_of('{"a": [1, 2.5, null, "ä"]}') == {"a": [1, 2.5, None, "ä"]}
    assert stored.json_of("-9223372036854775807") == -(2**63) + 1
    for text in ("[" * DEEP, '{"a":' * DEEP, "Infinity", "NaN", "1e400", "9" * 30, "9" * 5000, b"\xff", "", "{"):
        with pytest.raises(ValueError):
            stored.json_of(text)


def test_toml_is_a_table_or_a_value_error() -> None:
    assert stored.toml_of("a = [1, 2.5]\n[b]\nc = 'd'") == {"a": [1, 2.5], "b": {"c": "d"}}
    numbers = ("9" * 400, "9" * 5000, "0x" + "f" * 5000, "[" * DEEP, "1e", "{}}", "nan", "-inf", "1e400")
    texts: list[str | bytes] = [f"a = {number}" for number in numbers]
    for text in (*texts, "a." * 60 + "a = 1", b"\xff", "a"):
        with pytest.raises(ValueError):
            stored.toml_of(text)


def test_pipes_and_giants_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "giant").write_bytes(bytes(1001))
    for name in ("pipe", "giant", "missing", "."):
        with pytest.raises(OSError):
            stored.read_bytes(tmp_path / name, 1000)


@pytest.mark.parametrize("data", FILES)
def test_a_pace_that_is_none(data: bytes, own_cache: Path) -> None:
    path = own_cache / "srgan" / "pace.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    assert pace.recall("key") is None
    pace.remember("key", pace.Pace("cpu", "fp32", 64, 2.0))
    assert pace.recall("key") == pace.Pace("cpu", "fp32", 64, 2.0)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", ["device", "precision", "tile_px", "megapixels_per_second"])
def test_a_pace_with_an_odd_value(name: str, value: str, own_cache: Path) -> None:
    known = {"device": '"cpu"', "precision": '"fp32"', "tile_px": "64", "megapixels_per_second": "2.0", name: value}
    path = own_cache / "srgan" / "pace.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"key": {' + ", ".join(f'"{n}": {v}' for n, v in known.items()) + "}}", encoding="utf-8")
    found = pace.recall("key")
    assert found is None or (found.tile_px >= 1 and 0 < found.megapixels_per_second < float("inf"))


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", ["target", "source", "settings", "result"])
def test_a_line_of_the_ledger_with_an_odd_value(name: str, value: str, tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"x")
    whole = {"target": "a.png", "source": "s", "settings": "k", "result": identity(target)}
    odd = {key: json.dumps(item) for key, item in whole.items()} | {name: value}
    lines = ["{" + ", ".join(f'"{n}": {v}' for n, v in odd.items()) + "}", json.dumps({**whole, "target": "b.png"})]
    (tmp_path / FILE_NAME).write_text("\n".join(lines), encoding="utf-8")
    ledger = Ledger.load(tmp_path)
    assert ledger.state(target, "s", "k") in ("unknown", "stale", "changed")
    assert ledger.state(tmp_path / "b.png", "s", "k") == "changed"  # the line after it is read


@pytest.mark.parametrize("value", VALUES)
def test_a_journal_with_odd_rows(value: str, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text(f'{{"key": "k", "rows": {value}}}', encoding="utf-8")
    assert Journal(path, "k").rows() == 0
    path.write_text('{"key": "k", "rows": 7}', encoding="utf-8")
    assert Journal(path, "k").rows() == 7


@pytest.mark.parametrize("data", FILES)
def test_a_journal_that_is_none(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(data)
    assert Journal(tmp_path / "journal", "k").rows() == 0


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("value", VALUES)
def test_remembered_facts_with_an_odd_value(place: int, value: str, tmp_path: Path) -> None:
    items = ["40", "30", '"ab12"', "3.5", "90"]
    items[place] = value
    path = tmp_path / "scan.json"
    path.write_text(f'{{"key": [{", ".join(items)}]}}', encoding="utf-8")
    facts = _Memory(path).get("key")
    assert facts is None or (facts.width >= 1 and facts.height >= 1 and int(facts.digest, 16) in (0xAB12, 1))


@pytest.mark.parametrize("value", ["9" * 400, "0x" + "f" * 5000, "1e400", "nan", "[" * 50_000, '"x"', "true", "{}"])
@pytest.mark.parametrize("name", ["steps", "seed", "budget_s", "generator.features", "data.levels", "perceptual.layers",
                                  "degradation.noise", "watch.validate_every_s", "preset"])  # fmt: skip
def test_a_config_with_an_odd_value_is_a_sentence(name: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"{name} = {value}\n", encoding="utf-8")
    try:
        config = from_mapping(read_toml(path))
    except SettingsError:
        return
    assert (name, value) == ("preset", '"x"')
    assert config.preset == "x"


def test_a_whole_config_survives(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(to_toml(TrainConfig()), encoding="utf-8")
    assert from_mapping(read_toml(path)) == TrainConfig()


def test_a_value_of_the_command_line_that_is_too_large_is_text() -> None:
    assert parse_value("12") == 12
    assert parse_value("9" * 400) == "9" * 400
    assert parse_value("0x" + "f" * 4000) == "0x" + "f" * 4000


EVENTS: tuple[dict[str, object], ...] = (
    {"event": "started", "step": 0, "seconds": 0.0},
    {"event": "step", "step": 1, "seconds": 1.0, "phase": "fidelity", "learning_rate": 0.1, "gradient_norm": 1.0,
     "losses": {"pixel": 0.5, "total": 0.5}, "weighted": {"pixel": 0.5}, "discriminator": {"accuracy": 0.5}},
    {"event": "step", "step": 2, "seconds": 2.0, "phase": "adversarial", "losses": {"pixel": 0.5, "total": 0.5}},
    {"event": "validation", "step": 2, "seconds": 2.0, "psnr_y_db": 20.0, "bicubic_psnr_y_db": 21.0, "perceptual": 1.0},
    {"event": "validation", "step": 3, "seconds": 2.0, "psnr_y_db": 22.0, "bicubic_psnr_y_db": 21.0},
    {"event": "rollback", "step": 2, "seconds": 2.0, "text": "back"},
    {"event": "resumed", "step": 2, "seconds": 2.0},
    {"event": "note", "step": 2, "text": "a note"},
    {"event": "finished", "step": 4, "seconds": 9.0},
)  # fmt: skip


def _odd_logs() -> list[Callable[[str], str]]:
    """Each makes a log with `value` in one place of one event."""

    def at(number: int, keys: tuple[str, ...]) -> Callable[[str], str]:
        def make(value: str) -> str:
            events = json.loads(json.dumps(EVENTS))
            where = events[number]
            for key in keys[:-1]:
                where = where[key]
            where[keys[-1]] = "PLACE"
            return "\n".join(map(json.dumps, events)).replace('"PLACE"', value)

        return make

    places = [(n, (key,)) for n, event in enumerate(EVENTS) for key in event]
    return [at(n, keys) for n, keys in [*places, (1, ("losses", "pixel")), (1, ("discriminator", "accuracy"))]]


@pytest.mark.parametrize("value", ["-1e308", "[" * DEEP, '"text"', '{"a": []}', "9223372036854775807"])
def test_a_log_with_an_odd_value_is_drawn_without_it(value: str, tmp_path: Path) -> None:
    for make in _odd_logs():
        (tmp_path / "log.jsonl").write_text(make(value), encoding="utf-8")
        assert len(read_log(tmp_path / "log.jsonl")) >= len(EVENTS) - 1
        page = write_report(tmp_path, "", {}).read_text(encoding="utf-8")
        assert "A training run" in page
