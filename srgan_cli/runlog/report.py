"""`report.html`: the course and results of a run on one self-contained page.

All names and log texts are escaped, and the page's content policy forbids loading anything. Its template, style sheet
and script are beside this module, which prepares the contents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from srgan_cli.comparison.embedding import CODECS, render
from srgan_cli.errors import TrainingError
from srgan_cli.files import publish_text, reason
from srgan_cli.imaging.image import Pixels
from srgan_cli.runlog.charts import Chart, svg
from srgan_cli.runlog.curves import History, LogEvent, history, panels
from srgan_cli.runlog.record import LOG_NAME, Sheet, plain, read_log, read_sheet, sample_paths
from srgan_cli.runlog.scales import number
from srgan_cli.wording import counted

if TYPE_CHECKING:
    from markupsafe import Markup

REPORT_NAME = "report.html"
TEACHER_NAME = "teacher.png"  # low | student | teacher | original
WEAR_SHEET_NAME = "wear.png"  # high | bicubic low | worn by F | real worn | G(real worn) | G before

_ELSEWHERE = ("command", "scores", "likeness", "speeds", "wear")  # facts that are shown elsewhere
_PICTURES_BYTES = 3 << 20  # of all pictures together, before base64 makes them a third larger
_SHEET_BYTES = 1 << 20
_SHOWN_PX = 384  # approximate display width of a crop
_WIDE_PX, _NARROW_PX = (460, 240), (340, 240)  # approximate display widths of charts, so that text keeps its size


def write_report(folder: Path, config_toml: str, facts: Mapping[str, object]) -> Path:
    """Write `report.html` into a run folder, from its log and samples, and return its path.

    `facts` are shown by name, in order. Five are shown in their own sections: `command`, the command line; `scores`, by
    what was scored and then by metric; `likeness`, the number of pictures on which student and teacher are compared;
    their `speeds`, in low px per second; and `wear`, the appearance of real and synthetic worn pictures. Raises
    `TrainingError` if the page cannot be written.
    """
    run = history(read_log(folder / LOG_NAME))
    known = plain(facts)
    text = render(
        "runlog/report.html.jinja",
        name=folder.absolute().name,
        lede=" ".join(_lede(run, known)),
        **_pictures(folder, run),
        scores=_scores(run, known.get("scores")),
        teacher=_teacher(folder, known.get("likeness"), known.get("speeds")),
        wear=_wear(folder, known.get("wear")),
        curves=[_curve(chart) for chart in panels(run)],
        events=list(_events(run)),
        command=_command(known),
        facts=[_fact(*fact) for fact in known.items() if fact[0] not in _ELSEWHERE and fact[1] is not None],
        config=config_toml.splitlines(),
    )
    path = folder / REPORT_NAME
    try:
        publish_text(path, text, errors="replace", own=True)
    except OSError as err:
        raise TrainingError(f"{path} cannot be written: {reason(err)}") from err
    return path


# ------------------------------------------------------------------------------------------------------------ the head


def _lede(run: History, facts: Mapping[str, Any]) -> Iterator[str]:
    """The run in two or three sentences, as far as the log and the facts allow."""
    size = f" of {_amount(facts['parameters'])} weights" if facts.get("parameters") else ""
    scale = f" that enlarges {facts['scale']} times" if facts.get("scale") else ""
    device = f" on {facts['device']}" if facts.get("device") else ""
    phases = f" ({', then '.join(name for _, name in run.phases)})" if run.phases else ""
    length = f"{_count(run.last_step)} steps in {duration(run.seconds)}"
    yield f"A network{size}{scale}, trained for {length}{device}{phases}."
    if run.validations:
        last = run.validations[-1]
        reached, baseline = last.get("psnr_y_db"), last.get("bicubic_psnr_y_db")
        if isinstance(reached, float) and isinstance(baseline, float):
            gap = reached - baseline
            side = "above" if gap >= 0 else "below"
            yield f"On pictures it has never seen it reaches {reached:.2f} dB, {abs(gap):.2f} dB {side} bicubic."
    if run.rollbacks:
        times = {1: "once", 2: "twice"}.get(len(run.rollbacks), f"{len(run.rollbacks)} times")
        yield f"It went wrong {times} and was rolled back to a checkpoint."


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


def _pictures(folder: Path, run: History) -> dict[str, object]:
    """A slider per crop: the last result, compared with a picture that the reader chooses (`choices`)."""
    sheets = _milestones(folder, run)
    if not sheets:
        return {"pairs": []}
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
    words = {"first": "the model at step {}", "fidelity": "the model after fidelity, step {}"}
    choices = {key: words[key].format(_count(sheet.step)) for key, sheet in sheets.items()}
    return {
        "pairs": [_pair(row.high, addresses) for row, addresses in zip(last.rows, crops, strict=False)],
        "choices": {"low": "bicubic", **choices, "high": "the original"},
        "sampled_step": _count(last.step),
    }


def _pair(high: Pixels, addresses: Mapping[str, str]) -> dict[str, object]:
    height, width = high.shape[:2]
    shown_px = width * max(round(_SHOWN_PX / width), 1)  # integer factor, so that the result's px can be judged
    return {"addresses": addresses, "width": width, "height": height, "shown_px": shown_px}


def _milestones(folder: Path, run: History) -> dict[str, Sheet]:
    """`result`: the last sheet of samples; and the `first` before it, and the one at the end of `fidelity`."""
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


def _encoded(crops: Sequence[Mapping[str, Pixels]]) -> list[dict[str, Markup]]:
    """data: addresses by side, for as many crops, in as good a quality, as the page's budget allows."""
    files: list[dict[str, bytes]] = []
    for codec in CODECS:
        files = [{name: codec.encode(pixels) for name, pixels in crop.items()} for crop in crops]
        if sum(len(data) for crop in files for data in crop.values()) <= _PICTURES_BYTES:
            break
    kept: list[dict[str, Markup]] = []
    total = 0
    for encoded in files:
        total += sum(map(len, encoded.values()))
        if total <= _PICTURES_BYTES:
            kept.append({name: codec.address(data) for name, data in encoded.items()})
    return kept


# --------------------------------------------------------------------------------------------------------------- scores

# The scores to show: name, unit or domain, decimals.
_METRICS: Mapping[str, tuple[str, str, int]] = {
    "psnr_y_db": ("PSNR, Y", "dB", 2),
    "ssim_y": ("SSIM, Y", "of 1", 4),
    "psnr_rgb_db": ("PSNR, RGB", "dB", 2),
    "ssim_rgb": ("SSIM, RGB", "of 1", 4),
    "consistency_db": ("PSNR, downscaled", "dB", 2),
    "perceptual": ("VGG feature distance", "lower is closer", 4),
    "teacher_psnr_y_db": ("PSNR to the teacher", "dB", 2),
    "teacher_perceptual": ("VGG distance to the teacher", "lower is closer", 4),
    "niqe": ("NIQE", "lower is better", 2),
    "vgg19_conv3_4": ("VGG19 conv3_4", "lower is closer", 4),
    "lpips": ("LPIPS", "lower is closer", 4),
    "dists": ("DISTS", "lower is closer", 4),
    "spread": ("Two seeds differ by", "levels of 255", 2),
}


def _scores(run: History, given: object) -> dict[str, object]:
    """Bicubic, the model at its milestones, then everything else that was scored."""
    others = {str(name): values for name, values in given.items()} if isinstance(given, Mapping) else {}
    rows = _validation_rows(run, others.pop("bicubic", {}))
    if run.validations:
        others.pop("model", None)  # the last validation
    rows += [(name, values, False) for name, values in others.items() if isinstance(values, Mapping)]
    columns = [name for name in _METRICS if any(_is_score(values.get(name)) for _, values, _ in rows)]
    return {
        "columns": [_METRICS[column][:2] for column in columns],
        "rows": [
            {"name": name, "ours": ours, "cells": [_score(values.get(c), _METRICS[c][2]) for c in columns]}
            for name, values, ours in rows
        ],
    }


def _validation_rows(run: History, baseline: LogEvent) -> list[tuple[str, LogEvent, bool]]:
    if not run.validations:
        return []
    first, last = run.validations[0], run.validations[-1]
    best = max(run.validations, key=lambda event: _number(event.get("psnr_y_db")))
    prefix = "bicubic_"
    baseline = {key.removeprefix(prefix): value for key, value in last.items() if key.startswith(prefix)} | {**baseline}
    rows: list[tuple[str, LogEvent, bool]] = [("bicubic", baseline, False)] if baseline else []
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


# ------------------------------------------------------------------------------------------------------- the teacher


def _teacher(folder: Path, likeness: object, speeds: object) -> dict[str, object]:
    """The sheet of student and teacher, on how many pictures they are compared, and their speeds; empty without a
    teacher."""
    sheet = _sheet(folder / TEACHER_NAME)
    count = likeness if isinstance(likeness, int) else 0
    compared = counted(count, "held-out picture") if count else ""
    return {**sheet, "compared": compared, "speeds": _speeds_in_words(speeds)} if sheet else {}


def _sheet(path: Path) -> dict[str, object]:
    """A picture of the run folder, compressed to fit the page's budget; empty if there is none."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except OSError:
        return {}
    encoded = ((codec, codec.encode(pixels)) for codec in CODECS)
    address = next((codec.address(data) for codec, data in encoded if len(data) <= _SHEET_BYTES), None)
    return {"sheet": address, "width": pixels.shape[1], "height": pixels.shape[0]}


def _speeds_in_words(speeds: object) -> str:
    found = speeds if isinstance(speeds, Mapping) else {}
    student, teacher = (_number(found.get(f"{who}_px_per_s")) for who in ("student", "teacher"))
    if not student or not teacher:
        return ""
    return (
        f"Measured on this machine, the student enlarges {_count(student)} px of a small picture in a second, its "
        f"teacher {_count(teacher)}: {student / teacher:.1f} times as many."
    )


# ---------------------------------------------------------------------------------------------------------- the wear

# The numbers compared between real and synthetic worn pictures: name, unit, decimals.
_LOOKS: Mapping[str, tuple[str, str, int]] = {
    "noise": ("Noise in quiet parts", "levels of 255", 2),
    "blur_across_px": ("Blur of edges, across", "px", 2),
    "blur_down_px": ("Blur of edges, down", "px", 2),
    "blocking": ("Blocking", "1 is none", 2),
}


def _wear(folder: Path, numbers: object) -> dict[str, object]:
    """The sheet of the learned wear, and both sets in numbers; empty if no wear was learned."""
    found = numbers if isinstance(numbers, Mapping) else {}
    rows = [
        (name, unit, *(_score(found.get(f"{who}_{key}"), decimals) for who in ("real", "made")))
        for key, (name, unit, decimals) in _LOOKS.items()
    ]
    others = {
        key: _score(found.get(key), 2) for key in ("colour_shift", "variation", "accuracy", "hidden_db", "returned_db")
    }
    return {**_sheet(folder / WEAR_SHEET_NAME), "rows": rows, **others} if found else {}


# -------------------------------------------------------------------------------------------------------------- curves


def _curve(chart: Chart) -> dict[str, str]:
    """A chart in two versions, for wide screens and for phones; the style sheet shows one of them."""
    wide, narrow = svg(chart, *_WIDE_PX, "wide"), svg(chart, *_NARROW_PX, "narrow")
    return {"title": chart.title, "about": chart.about, "wide": wide, "narrow": narrow}


# ------------------------------------------------------------------------------------------------------- what happened


def _events(run: History) -> Iterator[dict[str, str]]:
    for event in run.others:
        kind, text = _told(event)
        if text:
            yield {"when": _when(event), "kind": kind, "text": text}


def _told(event: LogEvent) -> tuple[str, str]:
    """An event's class and sentence."""
    kind = event.get("event")
    sentences = {"started": "Begun.", "resumed": "Resumed from a checkpoint.", "finished": "Finished."}
    return "rollback" if kind == "rollback" else "told", sentences.get(str(kind), str(event.get("text") or ""))


def _when(event: LogEvent) -> str:
    found = []
    if _is_score(event.get("step")):
        found.append(f"step {_count(event['step'])}")
    if _is_score(event.get("seconds")) and event["seconds"]:
        found.append(duration(event["seconds"]))
    return " · ".join(found)


# ----------------------------------------------------------------------------------------------------- to make it again


def _command(facts: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """The command line, split into parts; a line may break before `--out`, but not inside it (True)."""
    text = str(facts.get("command") or "srgan train --config config.toml")
    parts = re.split(r"((?<!\S)--?[\w-]+)", text)
    return [(part, bool(number % 2)) for number, part in enumerate(parts) if part]


Lines = Mapping[str, Any] | list[Any] | str


def _fact(name: str, value: Any) -> tuple[str, Lines]:
    """`crop_px`, 128 -> crop, 128 px: units move from the name to the number."""
    words = name.replace("_", " ")
    if _is_score(value):
        if words.endswith(" s"):
            return words[:-2], duration(value)
        for unit in ("px", "dB"):
            if words.endswith(f" {unit.lower()}"):
                return words[: -len(unit) - 1], f"{_value(value)} {unit}"
    return words, _value(value)


def _value(value: Any) -> Lines:
    """Text, or nested lists and tables."""
    if isinstance(value, Mapping):
        return {str(key): _value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_value(item) for item in value]
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) and abs(value) >= 10000 else str(value)
