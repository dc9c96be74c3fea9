"""`report.html`: what a run did, on one page that needs no other file, and no network.

Everything that a name or a log can bring in is escaped, and the page's own policy forbids it to load anything. The
style sheet and the few lines of script lie beside this module.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from srgan_cli import __version__
from srgan_cli.comparison.embedding import CODECS, page
from srgan_cli.errors import TrainingError, shown
from srgan_cli.files import publish_text, reason
from srgan_cli.runlog.charts import Chart, svg
from srgan_cli.runlog.curves import Event, History, history, panels
from srgan_cli.runlog.record import LOG_NAME, Pixels, Sheet, plain, read_log, read_sheet, sample_paths
from srgan_cli.runlog.scales import number

REPORT_NAME = "report.html"

_PICTURES_BYTES = 3 << 20  # of all pictures, before base64 makes them a third larger
_SHOWN_PX = 384  # about as wide a crop is shown
_WIDE_PX, _NARROW_PX = (460, 240), (340, 240)  # about as wide as they are shown, so that letters keep their size


def write_report(folder: Path, config_toml: str, facts: Mapping[str, object]) -> Path:
    """Writes `report.html` into a run folder, from its log and samples, and returns its path.

    `facts` are shown in their order by their names. Two have a place of their own: `command`, the line that was typed,
    and `scores`, by what was scored and then by metric. Raises `TrainingError` when the page cannot be written.
    """
    run = history(read_log(folder / LOG_NAME))
    known = plain(facts)
    name = shown(folder.absolute().name)
    body = [
        _header(name, run, known),
        _pictures(folder, run),
        _scores(run, known.get("scores")),
        _curves(panels(run)),
        _events(run),
        _again(config_toml, known),
    ]
    path = folder / REPORT_NAME
    try:
        publish_text(path, _page(name, "\n".join(filter(None, body))), errors="replace", own=True)
    except OSError as err:
        raise TrainingError(f"{path} cannot be written: {reason(err)}") from err
    return path


def _page(title: str, body: str) -> str:
    body = f"{body}\n<footer>Written by srgan {__version__}.</footer>"
    return page(f"{title} – a training run", _beside("report.css"), body, _beside("report.js"))


def _beside(name: str) -> str:
    return resources.files("srgan_cli.runlog").joinpath(name).read_text(encoding="utf-8")


def _escaped(value: object) -> str:
    return html.escape(shown(value))


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n<div>\n{content}\n</div>\n</section>"


# ------------------------------------------------------------------------------------------------------------ the head


def _header(name: str, run: History, facts: Mapping[str, Any]) -> str:
    return (
        f'<header>\n<p class="kind">A training run of srgan</p>\n<h1>{_escaped(name)}</h1>\n'
        f'<p class="lede">{_escaped(" ".join(_lede(run, facts)))}</p>\n</header>'
    )


def _lede(run: History, facts: Mapping[str, Any]) -> Iterator[str]:
    """The run in two or three sentences, as far as the log and the facts have what they need."""
    size = f" of {_amount(facts['parameters'])} weights" if facts.get("parameters") else ""
    scale = f" that enlarges {facts['scale']} times" if facts.get("scale") else ""
    device = f" on {facts['device']}" if facts.get("device") else ""
    phases = f" ({', then '.join(name for _, name in run.phases)})" if run.phases else ""
    length = f"{_count(run.last_step)} steps in {duration(run.seconds)}"
    yield f"A network{size}{scale}, trained for {length}{device}{phases}."
    if run.validations:
        last = run.validations[-1]
        reached, floor = last.get("psnr_y_db"), last.get("bicubic_psnr_y_db")
        if isinstance(reached, float) and isinstance(floor, float):
            gap = reached - floor
            side = "above" if gap >= 0 else "below"
            yield f"On pictures it has never seen it reaches {reached:.2f} dB, {abs(gap):.2f} dB {side} bicubic."
    if run.rollbacks:
        times = {1: "once", 2: "twice"}.get(len(run.rollbacks), f"{len(run.rollbacks)} times")
        yield f"It went wrong {times} and was taken back to a checkpoint."


def _count(value: float) -> str:
    return number(value) if value >= 1000 else str(int(value))


def _amount(value: float) -> str:
    return f"{value / 1e6:.2f} million" if value >= 1e6 else _count(value)


def duration(seconds: float) -> str:
    """`42 s`, `19 min 58 s`, `3 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


# ------------------------------------------------------------------------------------------------------------- pictures


def _pictures(folder: Path, run: History) -> str:
    """A slider per crop: the last result, and over it what the reader chooses to compare it with."""
    sheets = _milestones(folder, run)
    if not sheets:
        return ""
    last = sheets.pop("result")
    crops = _encoded(
        [
            {
                "result": row.result,
                "low": row.low,
                **{key: s.rows[i].result for key, s in sheets.items()},
                "high": row.high,
            }
            for i, row in enumerate(last.rows)
        ]
    )
    if not crops:
        return ""
    words = {"first": "the model at step {}", "fidelity": "the model after fidelity, step {}"}
    choices = {key: words[key].format(_count(sheet.step)) for key, sheet in sheets.items()}
    choices = {"low": "bicubic", **choices, "high": "the original"}
    content = [
        '<p class="about">Parts of held-out pictures, which training never sees. Drag across a picture, or move to it '
        "with the Tab key and use the arrow keys.</p>",
        _choice(choices),
        '<div class="pairs" data-left="low">',
        *(_pair(i, crop, choices, last) for i, crop in enumerate(crops, 1)),
        "</div>",
    ]
    return _section("Before and after", "\n".join(content))


def _milestones(folder: Path, run: History) -> dict[str, Sheet]:
    """`result`: the last sheet of samples; and before it the `first`, and the one where `fidelity` ended."""
    paths = sample_paths(folder)
    last = next((sheet for sheet in map(read_sheet, reversed(paths)) if sheet is not None and sheet.rows), None)
    if last is None:
        return {}
    until_border = [path for path in paths if run.border is not None and int(path.stem) <= run.border]
    found = {"first": paths[:1], "fidelity": until_border[-1:]}
    milestones, steps = {}, {last.step}
    for name, of_name in found.items():
        sheet = next(map(read_sheet, of_name), None)
        if sheet is not None and sheet.step not in steps and len(sheet.rows) == len(last.rows):
            milestones[name] = sheet
            steps.add(sheet.step)
    return {**milestones, "result": last}


def _encoded(crops: Sequence[Mapping[str, Pixels]]) -> list[dict[str, str]]:
    """data: addresses by side, of as many crops, as well kept, as the page has room for."""
    files: list[dict[str, bytes]] = []
    for codec in CODECS:
        files = [{name: codec.encode(pixels) for name, pixels in crop.items()} for crop in crops]
        if sum(len(data) for crop in files for data in crop.values()) <= _PICTURES_BYTES:
            break
    kept, total = [], 0
    for encoded in files:
        total += sum(map(len, encoded.values()))
        if total <= _PICTURES_BYTES:
            kept.append({name: codec.address(data) for name, data in encoded.items()})
    return kept


def _choice(choices: Mapping[str, str]) -> str:
    options = "\n".join(
        f'<label><input type="radio" name="left" value="{key}"{" checked" * (key == "low")}>{_escaped(name)}</label>'
        for key, name in choices.items()
    )
    return f'<fieldset class="choice"><legend>Compare the result with</legend>\n{options}\n</fieldset>'


def _pair(index: int, crop: Mapping[str, str], choices: Mapping[str, str], last: Sheet) -> str:
    height, width = last.rows[index - 1].high.shape[:2]
    lefts = "\n".join(
        f'<img class="left {key}" src="{crop[key]}" width="{width}" height="{height}" alt="{_escaped(name)}">'
        for key, name in choices.items()
    )
    names = "".join(f'<span class="{key}">{_escaped(name)}</span>' for key, name in choices.items())
    shown_px = width * max(round(_SHOWN_PX / width), 1)  # whole pixels: a result is judged by its dots, too
    return f"""<figure style="width: {shown_px}px">
<div class="pair">
<img src="{crop["result"]}" width="{width}" height="{height}" alt="Result of the model, crop {index}">
{lefts}
<input type="range" min="0" max="100" value="50" aria-label="Crop {index}: how much of the left picture is shown">
</div>
<figcaption class="sides"><span>{names}</span><span>the model at step {_count(last.step)}</span></figcaption>
</figure>"""


# --------------------------------------------------------------------------------------------------------------- scores

# What is shown of a score: its name, what it is measured in or on, and decimals.
_METRICS: Mapping[str, tuple[str, str, int]] = {
    "psnr_y_db": ("PSNR, Y", "dB", 2),
    "ssim_y": ("SSIM, Y", "of 1", 4),
    "psnr_rgb_db": ("PSNR, RGB", "dB", 2),
    "ssim_rgb": ("SSIM, RGB", "of 1", 4),
    "consistency_db": ("made small again", "dB", 2),
    "perceptual": ("distance in VGG's eyes", "less is nearer", 4),
    "niqe": ("NIQE", "less is better", 2),
    "vgg19_conv3_4": ("VGG19 conv3_4", "less is nearer", 4),
    "lpips": ("LPIPS", "less is nearer", 4),
    "dists": ("DISTS", "less is nearer", 4),
}


def _scores(run: History, given: object) -> str:
    """Bicubic, then the model at its milestones, then whatever else was scored."""
    others = {str(name): values for name, values in given.items()} if isinstance(given, Mapping) else {}
    rows = _validation_rows(run, others.pop("bicubic", {}))
    if run.validations:
        others.pop("model", None)  # the last validation
    rows += [(name, values, False) for name, values in others.items() if isinstance(values, Mapping)]
    columns = [name for name in _METRICS if any(_is_score(values.get(name)) for _, values, _ in rows)]
    if not columns:
        return ""
    head = "".join(f'<th scope="col">{_METRICS[c][0]}<small>{_METRICS[c][1]}</small></th>' for c in columns)
    lines = "\n".join(
        f'<tr{" class=ours" if ours else ""}><th scope="row">{_escaped(name)}</th>'
        + "".join(f"<td>{_score(values.get(c), _METRICS[c][2])}</td>" for c in columns)
        + "</tr>"
        for name, values, ours in rows
    )
    return _section(
        "Scores",
        f'<div class="wide-table">\n<table>\n<thead><tr><td></td>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n'
        '</table>\n</div>\n<p class="about">Means over the held-out pictures. PSNR and SSIM as the field has them: on '
        "Y of BT.601, or on RGB, of 8 bits, a border as wide as the scale left out.</p>",
    )


def _validation_rows(run: History, floor: Event) -> list[tuple[str, Event, bool]]:
    if not run.validations:
        return []
    first, last = run.validations[0], run.validations[-1]
    best = max(run.validations, key=lambda event: _number(event.get("psnr_y_db")))
    prefix = "bicubic_"
    floor = {key.removeprefix(prefix): value for key, value in last.items() if key.startswith(prefix)} | {**floor}
    rows: list[tuple[str, Event, bool]] = [("bicubic", floor, False)] if floor else []
    fidelity = [event for event in run.validations if run.border is not None and event["step"] <= run.border]
    milestones = [("first", first), *(("after fidelity", event) for event in fidelity[-1:]), ("nearest", best)]
    shown_steps = {last["step"]}
    for word, event in milestones:
        if event["step"] not in shown_steps:
            rows.append((f"{word}, step\N{NO-BREAK SPACE}{_count(event['step'])}", event, False))
            shown_steps.add(event["step"])
    return [*rows, (f"last, step\N{NO-BREAK SPACE}{_count(last['step'])}", last, True)]


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float:
    return float(value) if _is_score(value) else 0.0


def _score(value: Any, decimals: int) -> str:
    return f"{value:.{decimals}f}" if _is_score(value) else "–"


# -------------------------------------------------------------------------------------------------------------- curves


def _curves(charts: Sequence[Chart]) -> str:
    """Each chart twice, for wide screens and for phones; the style sheet shows one of them."""
    figures = [
        f"<figure>\n<h3>{_escaped(chart.title)}</h3>\n"
        f"{svg(chart, *_WIDE_PX, 'wide')}\n{svg(chart, *_NARROW_PX, 'narrow')}\n"
        f"<figcaption>{_escaped(chart.about)}</figcaption>\n</figure>"
        for chart in charts
    ]
    return _section("Curves", '<div class="curves">\n' + "\n".join(figures) + "\n</div>") if figures else ""


# ------------------------------------------------------------------------------------------------------- what happened


def _events(run: History) -> str:
    lines = [
        f'<li><span class="when">{_when(event)}</span><span class="{kind}">{_escaped(text)}</span></li>'
        for event in run.told
        for kind, text in [_told(event)]
        if text
    ]
    return _section("What happened", '<ol class="events">\n' + "\n".join(lines) + "\n</ol>") if lines else ""


def _told(event: Event) -> tuple[str, str]:
    """How an event is drawn, and its sentence."""
    kind = event.get("event")
    sentences = {"started": "Begun.", "resumed": "Went on from a checkpoint.", "finished": "Finished."}
    return "rollback" if kind == "rollback" else "told", sentences.get(str(kind), str(event.get("text") or ""))


def _when(event: Event) -> str:
    found = []
    if _is_score(event.get("step")):
        found.append(f"step {_count(event['step'])}")
    if _is_score(event.get("seconds")) and event["seconds"]:
        found.append(duration(event["seconds"]))
    return " · ".join(found)


# ----------------------------------------------------------------------------------------------------- to make it again


def _again(config_toml: str, facts: Mapping[str, Any]) -> str:
    command = facts.get("command") or "srgan train --config config.toml"
    rows = "\n".join(
        f"<dt>{_escaped(label)}</dt><dd>{text}</dd>"
        for name, value in facts.items()
        if name not in ("command", "scores") and value is not None
        for label, text in [_fact(name, value)]
    )
    listing = f"<dl>\n{rows}\n</dl>" if rows else ""
    return _section(
        "To make it again",
        f'<pre class="command">{_unbroken_options(_escaped(command))}</pre>\n{listing}\n'
        f"<details><summary>Every setting, as in config.toml</summary>\n<pre>{_escaped(config_toml)}</pre></details>",
    )


def _unbroken_options(text: str) -> str:
    """A line may end before `--out`, but not inside it."""
    return re.sub(r"(?<!\S)--?[\w-]+", r"<span>\g<0></span>", text)


def _fact(name: str, value: Any) -> tuple[str, str]:
    """`crop_px`, 128 -> crop, 128 px: units go from the name to the number."""
    words = name.replace("_", " ")
    if _is_score(value):
        if words.endswith(" s"):
            return words[:-2], duration(value)
        for unit in ("px", "dB"):
            if words.endswith(f" {unit.lower()}"):
                return words[: -len(unit) - 1], f"{_value(value)} {unit}"
    return words, _value(value)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "<br>".join(f"{_escaped(key)}: {_value(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "<br>".join(map(_value, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) and abs(value) >= 10000 else _escaped(value)
