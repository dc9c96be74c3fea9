"""The documents agree with the manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import model_pages
from benchmarks import scores as bundled_scores
from srgan_cli.errors import WeightsError
from srgan_cli.networks import registry
from srgan_cli.networks.registry import Entry

ENTRIES = registry.entries()
HEADINGS = ("What it is for", "Recipe", "Scores", "Known failures", "Licence and provenance")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_model_has_a_page_that_says_what_the_manifest_says(entry: Entry) -> None:
    path = model_pages.page_path(entry)
    assert path.is_file(), "python -m benchmarks.model_pages makes one"
    text = path.read_text(encoding="utf-8")
    assert model_pages.page(entry) == text, "python -m benchmarks.model_pages brings it up to date"
    assert model_pages.TODO not in text, "somebody must complete it"
    for heading in HEADINGS:
        assert f"\n## {heading}\n" in text


def test_the_overview_says_what_the_manifest_says() -> None:
    text = model_pages.OVERVIEW.read_text(encoding="utf-8")
    entries = model_pages.in_order(registry.weights_folder())
    assert {entry.name: entry for entry in entries} == {entry.name: entry for entry in ENTRIES}
    assert model_pages.overview_page(text, entries) == text, "python -m benchmarks.model_pages brings it up to date"


def test_the_models_are_small() -> None:
    sizes = [entry.path.stat().st_size for entry in ENTRIES]
    assert max(sizes) <= 4 << 20
    assert sum(path.stat().st_size for path in registry.weights_folder().iterdir()) < 20 << 20


@pytest.fixture
def two() -> list[Entry]:
    entry = replace(ENTRIES[0], name="a-x4", family="photo", scale=4, recipe={"precision": "fp32"})
    numbers = dict(zip(bundled_scores.PLACES, (28.4217, 0.81012, 28.46, 0.6451, 6.904, 34.02), strict=True))
    scores = {"Set14": numbers, "Set14-jpeg30": {**numbers, "psnr_y_db": 25.1}}
    return [replace(entry, scores=scores), replace(entry, name="b-x4", scores={"Set14": {"psnr_y_db": 30.0}})]


def test_tables_have_all_numbers_and_dashes_for_what_is_missing(
    two: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled_scores, "bicubic_scores", lambda _scale: {"Set14": two[1].scores["Set14"]})
    marks = "".join(
        f"<!-- table:{key}:{end} -->\n" for key in ("models", "scores", "detail", "jpeg") for end in ("begin", "end")
    )
    text = model_pages.overview_page(marks, two)
    assert "| Set14 | `a-x4` | 28.42 | .8101 | .645 | 6.90 | 34.0 |" in text
    assert "| Set14 | bicubic | 30.00 | – | – | – | – |" in text
    assert "| Set14 | `b-x4` | 30.00 | – | – | – | – |" in text
    assert "| `a-x4` | 28.42 / .645 / 6.90 | – / – / – | – / – / – | – / – / – | 25.10 / .645 / 6.90 |" in text
    assert "| `b-x4` | 30.00 /" not in text, "it has nothing to say of compressed pictures"
    assert model_pages.overview_page(text, two) == text


def test_a_page_keeps_what_people_wrote(two: list[Entry], tmp_path: Path) -> None:
    (tmp_path / "a-x4.safetensors").write_bytes(ENTRIES[0].path.read_bytes())
    entry = replace(two[0], path=tmp_path / "a-x4.safetensors")
    page = model_pages.page(entry)
    for heading in (*HEADINGS, "Curves", "Speed"):
        assert f"\n## {heading}\n" in page
    (tmp_path / "a-x4.md").write_text(page.replace("TODO: what to give it, and what not.", "Cats."), encoding="utf-8")
    changed = model_pages.page(replace(entry, scores={"Set5": {"psnr_y_db": 99.0}}))
    assert "Cats." in changed
    assert "| Set5: `a-x4` | 99.00 | – |" in changed
    assert "| Set14" not in changed


def test_pairs_are_not_called_downscaled() -> None:
    recipe = {"pictures": 1234, "degradation": {"kind": "bicubic"}}
    assert model_pages._data(recipe) == "1,234 pictures, downscaled by bicubic interpolation"
    assert model_pages._data({**recipe, "command": "srgan train --hr-dir a --lr-dir b"}) == "1,234 pairs of pictures"


@pytest.mark.parametrize(
    "text", ["", "<!-- facts:begin -->", "<!-- facts:end --><!-- facts:begin -->", "<!-- facts:begin -->" * 2]
)
def test_a_page_without_its_marks_is_a_sentence(text: str) -> None:
    with pytest.raises(WeightsError, match=r"page\.md must have <!-- facts:begin -->"):
        model_pages.replaced(text, "facts", "x", Path("page.md"))


@pytest.mark.parametrize(("seconds", "text"), [(10, "1 min"), (3300, "55 min"), (7500, "2 h 5 min")])
def test_durations(seconds: float, text: str) -> None:
    assert model_pages._duration(seconds) == text
