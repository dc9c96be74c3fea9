"""Curves and the page: contents, well-formed, small and self-contained, for any log."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgan_cli.errors import TrainingError
from srgan_cli.runlog import report
from srgan_cli.runlog.charts import Chart, Series, Stroke, Text, layout, svg
from srgan_cli.runlog.curves import history, panels, points
from srgan_cli.runlog.record import RunRecord
from srgan_cli.runlog.report import duration, write_report
from srgan_cli.runlog.scales import kept_apart, log_ticks, number, smoothed, thinned, tick_labels, ticks
from srgan_cli.training_config import TrainConfig
from srgan_cli.training_presets import to_toml

values = st.floats(-1e9, 1e9, allow_nan=False)

# ------------------------------------------------------------------------------------------------------ the arithmetic


@given(values, st.floats(1e-6, 1e9), st.integers(1, 12))
def test_ticks_are_round_inside_and_not_too_many(least: float, span: float, many: int) -> None:
    found = ticks(least, least + span, many)
    slack = 1e-6 * (span + abs(least))
    assert len(found) <= many + 1
    assert all(least - slack <= tick <= least + span + slack for tick in found)


def test_ticks_are_the_expected_ones() -> None:
    assert ticks(26.3, 29.4, 4) == [27, 28, 29]
    assert ticks(0, 9120, 5) == [0, 2000, 4000, 6000, 8000]
    assert log_ticks(0.004, 2.0, 6) == pytest.approx([0.01, 0.03, 0.1, 0.3, 1.0])
    assert log_ticks(1e-9, 1.0, 4) == pytest.approx([1e-9, 1e-6, 1e-3, 1.0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.03124, "0.0312"),
        (28.914, "28.91"),
        (-1.158, "\N{MINUS SIGN}1.16"),
        (126.04, "126.0"),
        (12400, "12\N{NARROW NO-BREAK SPACE}400"),
        (3.1e-6, "3.1e\N{MINUS SIGN}6"),
        (1e-12, "0"),
        (math.nan, "–"),
    ],
)
def test_numbers_are_written_with_care(value: float, text: str) -> None:
    assert number(value) == text


def test_labels_of_an_axis_agree_in_their_decimals() -> None:
    assert tick_labels([0.0, 0.5, 1.0]) == ["0.0", "0.5", "1.0"]
    assert tick_labels([-10.0, 0.0, 10.0]) == ["\N{MINUS SIGN}10", "0", "10"]
    assert tick_labels([0.01, 0.1, 1.0], even=False) == ["0.01", "0.1", "1"]


@given(st.lists(values, max_size=300), st.integers(2, 50))
def test_a_thinned_line_keeps_its_end_and_its_range(y: list[float], most: int) -> None:
    line = list(enumerate(y))
    found = thinned(line, most)
    assert len(found) <= max(most, 0)
    assert found[-1:] == line[-1:]
    assert all(min(y) - 1e-3 <= value <= max(y) + 1e-3 for _, value in found)


def test_a_smoothed_line_is_the_mean_of_a_window_that_opens_slowly() -> None:
    y = np.random.default_rng(0).normal(size=200)
    found = np.array([value for _, value in smoothed(list(enumerate(y.tolist())))])
    assert found[0] == pytest.approx(y[0])
    assert found[2] == pytest.approx(y[:5].mean())
    assert found[-1] == pytest.approx(y[-5:].mean())
    assert found[100] == pytest.approx(y[96:105].mean())


@given(st.lists(st.floats(0, 100), max_size=6))
def test_names_keep_their_distance_and_their_order(wanted: list[float]) -> None:
    places = kept_apart(wanted, 15, 0, 100)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    assert all(places[b] - places[a] >= 15 - 1e-9 for a, b in itertools.pairwise(order))
    assert all(-1e-9 <= place <= 100 for place in places)


# ------------------------------------------------------------------------------------------------------------- drawing

HARD_LINES: list[list[tuple[float, float]]] = [
    [],
    [(5.0, 1.0)],
    [(1.0, 0.0), (2.0, 0.0)],
    [(0.0, 1e-12), (1e6, 1e12)],
    [(float(x), math.sin(x)) for x in range(5000)],
]


@pytest.mark.parametrize("line", HARD_LINES)
@pytest.mark.parametrize("logarithmic", [True, False])
@pytest.mark.parametrize("kind", ["line", "main", "baseline"])
def test_any_line_stays_inside_the_drawing(line: list[tuple[float, float]], logarithmic: bool, kind: Any) -> None:
    chart = Chart(
        "t",
        "dB",
        [Series("a", line, kind, smooth=True)],
        logarithmic=logarithmic,
        parts=[(0, "p"), (1, "q")],
        marks=[1],
    )
    for shape in layout(chart, 400, 240):
        for x, y in shape.points if isinstance(shape, Stroke) else [(shape.x, shape.y)]:
            assert -5 <= x <= 400
            assert -5 <= y <= 245
    root = ElementTree.fromstring(svg(chart, 400, 240))
    assert root.get("viewBox") == "0 0 400 240"


def test_a_line_is_where_its_values_are() -> None:
    chart = Chart("t", "dB", [Series("a", [(0, 0), (50, 1), (100, 0)], "main")], least=0.0, most=1.0)
    stroke = next(s for s in layout(chart, 400, 240) if isinstance(s, Stroke) and s.role == "ink")
    (x0, y0), (x1, y1), (x2, y2) = stroke.points
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 == y2 > y1  # up is less


def test_a_line_that_ended_early_gives_no_last_value() -> None:
    chart = Chart("t", "", [Series("on", [(0, 2), (100, 2)]), Series("off", [(0, 1), (50, 1)])])
    names = [shape.text for shape in layout(chart, 400, 240) if isinstance(shape, Text) and shape.role == "s0"]
    assert sorted(names) == ["off", "on 2.00"]


def test_names_from_a_log_are_escaped_in_svg() -> None:
    drawn = svg(Chart('"<t>', "<u>", [Series("<a&b>", [(0, 1), (1, 1)])]), 400, 240, "wide")
    assert "<a" not in drawn
    assert ElementTree.fromstring(drawn).findall("text")[-1].text == "<a&b> 1.00"


# ------------------------------------------------------------------------------------------------------------- history


def step(number: int, phase: str = "fidelity", **more: object) -> dict[str, Any]:
    return {
        "event": "step",
        "phase": phase,
        "step": number,
        "seconds": number / 10,
        "learning_rate": 1e-3,
        "losses": {"pixel": 0.03, "total": 0.05},
        "weighted": {"pixel": 0.03},
        "gradient_norm": 0.4,
        **more,
    }


def validation(number: int, psnr: float = 28.0, **more: object) -> dict[str, Any]:
    return {"event": "validation", "step": number, "psnr_y_db": psnr, "bicubic_psnr_y_db": 26.5, **more}


def test_what_was_rolled_back_is_not_drawn() -> None:
    rollback = {"event": "rollback", "step": 40, "text": "NaN"}
    log = [step(10), validation(15), step(20), step(30), validation(35), rollback]
    run = history([*log, {"event": "resumed", "step": 20}, step(30, learning_rate=5e-4)])
    assert [event["step"] for event in run.steps] == [10, 20, 30]
    assert [event["step"] for event in run.validations] == [15]
    assert points(run.steps, "learning_rate")[-1] == (30, 5e-4)
    assert run.rollbacks == [40]


def test_missing_and_null_values_are_gaps() -> None:
    log = [step(1, losses={"pixel": None}), step(2), {"event": "step", "step": 3, "losses": 7}, {"event": "step"}]
    assert points(history(log).steps, "losses", "pixel") == [(2, 0.03)]


def test_panels_follow_what_the_log_holds() -> None:
    assert panels(history([])) == []
    plain = [chart.title for chart in panels(history([step(1), step(2)]))]
    assert "The discriminator's accuracy" not in plain
    assert "Similarity to the originals" not in plain
    verdicts = {"loss": 1.0, "real": 0.5, "fake": -0.5, "accuracy": 0.7}
    charts = panels(history([step(1), step(2, "adversarial", discriminator=verdicts), validation(2)]))
    assert charts[0].title == "Similarity to the originals"
    assert "The discriminator's accuracy" in [chart.title for chart in charts]
    assert charts[0].parts == [(0, "fidelity"), (1, "adversarial")]


def test_a_network_that_has_learned_nothing_yet_does_not_flatten_the_curve() -> None:
    chart = panels(history([validation(0, 8.0), validation(10, 28.0), validation(20, 28.5)]))[0]
    assert chart.least == 23.5
    assert panels(history([validation(0, 24.0), validation(10, 28.0)]))[0].least is None


def test_losses_below_zero_leave_the_logarithmic_chart() -> None:
    log = [step(i, losses={"pixel": 0.1, "adversarial": -1.0, "total": 0.1}) for i in range(1, 30)]
    by_title = {chart.title: [one.name for one in chart.series] for chart in panels(history(log))}
    assert by_title["Losses, unweighted"] == ["pixel"]
    assert by_title["Losses that may be negative"] == ["adversarial"]
    ramp = [step(i, weighted={"adversarial": max(i - 2, 0) * 0.1}) for i in range(1, 30)]
    ramp = [{**event, "losses": {"adversarial": 1.0, "total": 1.0}} for event in ramp]
    weighted = next(chart for chart in panels(history(ramp)) if chart.title == "Losses, weighted")
    assert [one.name for one in weighted.series] == ["adversarial", "total"]
    assert all(y > 0 for one in weighted.series for _, y in one.points)


# ------------------------------------------------------------------------------------------------------------ the page


class Page(HTMLParser):
    """The links of a page, and its text."""

    void = ("meta", "img", "input", "br", "polyline")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag not in self.void:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] not in (["style"], ["script"]):
            self.words += data


def finished_run(folder: Path, side: int = 48, count: int = 2) -> Path:
    rng = np.random.default_rng(0)
    high = list(rng.integers(0, 256, (count, side, side, 3), np.uint8))
    low = [crop[::4, ::4] for crop in high]
    with RunRecord(folder) as run:
        run.log({"event": "started", "step": 0, "seconds": 0.0})
        for number in range(20, 201, 20):
            run.log(step(number))
        run.log(validation(20, 24.0, ssim_y=0.7))
        run.sample(20, low, high, high)
        run.log({"event": "note", "step": 30, "seconds": 3.0, "text": "<script>alert(1)</script> & more"})
        run.log({"event": "rollback", "step": 40, "seconds": 4.0, "text": "The loss is not a number."})
        run.log(validation(200, 28.25, ssim_y=0.8))
        run.sample(200, low, high, high)
        run.log({"event": "finished", "step": 200, "seconds": 1198.0})
    return folder


def test_the_page_stands_alone_and_tells_the_run(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "<b>photos & more")
    facts = {
        "command": 'srgan train --hr-dir "a<b>"',
        "device": "cpu",
        "crop_px": 128,
        "budget_s": 1200.0,
        "none": None,
    }
    path = write_report(folder, to_toml(TrainConfig()), facts)
    assert path == folder / "report.html"
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert "@import" not in text
    assert "url(" not in text
    assert page.tags.count("script") == 1
    assert "b" not in page.tags
    for words in (
        "<b>photos & more",
        "200 steps in 19 min 58 s on cpu (fidelity)",
        "28.25 dB, 1.75 dB above bicubic",
        "went wrong once",
        "<script>alert(1)</script> & more",
        'srgan train --hr-dir "a<b>"',
        "128 px",
        "20 min",
        'preset = "srgan"\nphase = "both"\n',
        "the model at step 200",
    ):
        assert words in page.words
    assert not list(folder.glob(".*.part"))


def test_each_crop_has_a_slider_that_a_keyboard_can_move(tmp_path: Path) -> None:
    text = write_report(finished_run(tmp_path), "", {}).read_text(encoding="utf-8")
    sliders = re.findall(r'<input type="range"[^>]*>', text)
    assert len(sliders) == 2
    assert all("aria-label" in slider and "tabindex" not in slider and "disabled" not in slider for slider in sliders)
    assert all("alt=" in picture for picture in re.findall(r"<img [^>]*>", text))
    assert len(re.findall(r"<img ", text)) == 2 * 4  # result, and bicubic, first, original over it


def test_after_two_phases_the_first_can_be_compared_with(tmp_path: Path) -> None:
    folder = finished_run(tmp_path)
    crops = [np.zeros((48, 48, 3), np.uint8)] * 2
    with RunRecord(folder, resume_bytes=1 << 20) as run:
        run.log(step(220, "adversarial"))
        run.log(validation(300, 27.0))
        run.log({"event": "finished", "step": 300})
        run.sample(300, [crop[::4, ::4] for crop in crops], crops, crops)
    (folder / "samples" / "000400.png").write_bytes(b"cut short")  # the last that can be read counts
    text = write_report(folder, "", {}).read_text(encoding="utf-8")
    assert re.findall(r'name="left" value="(\w+)"', text) == ["low", "first", "fidelity", "high"]
    assert "the model after fidelity, step 200" in text
    assert '<th scope="row">after fidelity, step\N{NO-BREAK SPACE}200</th>' in text


def test_a_run_that_holds_nothing_still_has_a_page(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path, "steps = 1\n", {}).read_text(encoding="utf-8"))
    assert "steps = 1" in page.words
    assert "img" not in page.tags


def test_large_pictures_are_compressed_and_then_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = finished_run(tmp_path, side=256)  # noise: nothing compresses worse
    assert "image/png" in write_report(folder, "", {}).read_text(encoding="utf-8")
    monkeypatch.setattr(report, "_PICTURES_BYTES", 1_000_000)
    text = write_report(folder, "", {}).read_text(encoding="utf-8")
    assert "image/png" not in text
    assert text.count('type="range"') == 2
    monkeypatch.setattr(report, "_PICTURES_BYTES", 450_000)
    text = write_report(folder, "", {}).read_text(encoding="utf-8")
    assert text.count('type="range"') == 1
    assert len(text) < 700_000
    monkeypatch.setattr(report, "_PICTURES_BYTES", 1)
    assert "Before and after" not in write_report(folder, "", {}).read_text(encoding="utf-8")


def test_scores_that_are_given_fill_the_rows(tmp_path: Path) -> None:
    scores = {"bicubic": {"ssim_y": 0.7421}, "model": {"psnr_y_db": 1.0}, "Set5": {"psnr_y_db": 31.44, "odd": 3}}
    text = write_report(finished_run(tmp_path), "", {"scores": scores}).read_text(encoding="utf-8")
    rows = {
        re.sub(r"<.*?>", "", name).replace("\N{NO-BREAK SPACE}", " "): re.findall(r"<td>(.*?)</td>", cells)
        for name, cells in re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', text)
    }
    assert rows == {
        "bicubic": ["26.50", "0.7421"],
        "first, step 20": ["24.00", "0.7000"],
        "last, step 200": ["28.25", "0.8000"],
        "Set5": ["31.44", "–"],
    }


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(TrainingError, match=r"report\.html cannot be written"):
        write_report(tmp_path, "", {})


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.6, "1 min"), (1198, "19 min 58 s"), (3600, "1 h"), (11_100, "3 h 5 min")],
)
def test_lengths_of_time_are_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
