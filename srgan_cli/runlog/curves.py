"""From the log of a run to its charts: undone steps are left out, and losses are grouped by topic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from srgan_cli.runlog.charts import Chart, Series
from srgan_cli.runlog.scales import Point

LogEvent: TypeAlias = Mapping[str, Any]

_ENDLESS = 1e100  # beyond the range of any axis


@dataclass(frozen=True)
class History:
    """A parsed log. `steps` and `validations` are increasing; those undone by a rollback are removed.

    `others` holds all other events in order: started, resumed, notes, rollbacks, finished.
    """

    steps: Sequence[LogEvent]
    validations: Sequence[LogEvent]
    others: Sequence[LogEvent]

    @property
    def phases(self) -> list[tuple[float, str]]:
        """The start of each phase: after the last step of the previous one."""
        found: list[tuple[float, str]] = []
        last = 0.0
        for event in self.steps:
            name = event.get("phase")
            if isinstance(name, str) and (not found or found[-1][1] != name):
                found.append((last, name))
            last = float(event["step"])
        return found

    @property
    def border(self) -> int | None:
        """The last step of the phase in which the generator first learns, if another follows."""
        learning = [began for began, name in self.phases if name != "wear"]
        return int(learning[1]) if len(learning) > 1 else None

    @property
    def rollbacks(self) -> list[float]:
        return [float(e["step"]) for e in self.others if e.get("event") == "rollback" and _is_number(e.get("step"))]

    @property
    def last_step(self) -> int:
        return max((int(e["step"]) for e in (*self.steps[-1:], *self.validations[-1:])), default=0)

    @property
    def seconds(self) -> float:
        every = (*self.steps[-1:], *self.validations[-1:], *self.others[-1:])
        return max((float(e["seconds"]) for e in every if _is_number(e.get("seconds"))), default=0.0)


def history(events: Iterable[LogEvent]) -> History:
    """Sort the events of a log. Continuing at a step (`resumed`: after a rollback, or a kill) removes those after
    it."""
    steps: list[LogEvent] = []
    validations: list[LogEvent] = []
    others: list[LogEvent] = []
    for event in events:
        kind, step = event.get("event"), event.get("step")
        if kind in ("step", "validation") and isinstance(step, int):
            kept = steps if kind == "step" else validations
            _undo(kept, step - 1)  # a repeated step replaces the earlier one
            kept.append(event)
        elif kind not in ("step", "validation"):
            others.append(event)
            if kind == "resumed" and isinstance(step, int):
                _undo(steps, step)
                _undo(validations, step)
    return History(steps, validations, others)


def _undo(events: list[LogEvent], last_step: float) -> None:
    while events and events[-1]["step"] > last_step:
        events.pop()


def points(events: Iterable[LogEvent], *path: str) -> list[Point]:
    """The values at `path` of each event, over their steps; missing and null ones are left out."""
    found = []
    for event in events:
        value: Any = event
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if _is_number(value) and abs(value) < _ENDLESS:
            found.append((float(event["step"]), float(value)))
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ------------------------------------------------------------------------------------------------------------- panels


def panels(run: History) -> list[Chart]:
    """The charts of a run that have any data, most important first."""
    found = [
        Chart(
            "Similarity to the originals",
            "PSNR on Y, dB",
            [
                Series("bicubic", points(run.validations, "bicubic_psnr_y_db"), "baseline"),
                Series("model", points(run.validations, "psnr_y_db"), "main"),
                *_with_noise(run, "psnr_y_db"),
            ],
            least=_min_psnr_db(run),
            about="On the held-out pictures; higher is closer. Below the dashed line, bicubic would do better. "
            "The adversarial phase trades some of it for texture.",
        ),
        Chart(
            "Perceptual distance",
            "distance of VGG features",
            [Series("model", points(run.validations, "perceptual"), "main"), *_with_noise(run, "perceptual")],
            about="At the deepest layer, on the held-out pictures; lower is closer. It falls where PSNR does not.",
        ),
        Chart(
            "Results from two seeds",
            "mean difference, levels of 255",
            [Series("with noise", points(run.validations, "with_noise", "spread"), "main")],
            least=0.0,
            about="How far two results of one picture are apart. Near 0 the network ignores its noise.",
        ),
        *_wear(run),
        *_losses(run),
        *_adversaries(run),
        Chart(
            "Consistency with the input",
            "PSNR of the downscaled result, dB",
            [
                Series("bicubic", points(run.validations, "bicubic_consistency_db"), "baseline"),
                Series("model", points(run.validations, "consistency_db"), "main"),
            ],
            about="How well the downscaled result agrees with its input. Where it falls, colours or "
            "structures are being invented.",
        ),
        Chart(
            "Learning rate",
            "step size of the optimiser",
            [Series("generator", points(run.steps, "learning_rate"), "main")],
            least=0.0,
            about="The actual rate, including reductions by rollbacks.",
        ),
        Chart(
            "Size of the gradient",
            "norm of all gradients, before clipping",
            [Series("generator", points(run.steps, "gradient_norm"), "main", smooth=True)],
            logarithmic=True,
            about="Steady or slowly falling is fine. A steep rise comes before a run that diverges.",
        ),
    ]
    label = f"step ({_length(run.seconds)})" if run.seconds else "step"
    return [
        replace(chart, series=shown, parts=run.phases, marks=run.rollbacks, x_label=label)
        for chart in found
        if (shown := [one for one in chart.series if one.points]) and any(s.kind != "baseline" for s in shown)
    ]


def _min_psnr_db(run: History) -> float | None:
    """A network that has learned nothing yet may have 8 dB, which would flatten the rest of the chart."""
    baseline = [value for _, value in points(run.validations, "bicubic_psnr_y_db")]
    found = [value for _, value in points(run.validations, "psnr_y_db")]
    return baseline[-1] - 3 if baseline and found and min(found) < baseline[-1] - 4 else None


def _with_noise(run: History, key: str) -> list[Series]:
    """The same score for results drawn from noise, if that is learned."""
    return [Series("with noise", points(run.validations, "with_noise", key))]


def _wear(run: History) -> list[Chart]:
    """How close a wearer is to real worn pictures, if wear is learned."""

    def beside(key: str) -> list[Series]:
        made, real = (points(run.validations, "wear", f"{who}_{key}") for who in ("made", "real"))
        return [Series("real worn pictures", real, "baseline"), Series("worn by F", made, "main")]

    return [
        Chart("Blur of worn pictures", "of edges across, px", beside("blur_across_px"),
              about="The wearer's results should reach the dashed line and stay there."),
        Chart("Noise of worn pictures", "in quiet parts, levels of 255", beside("noise"),
              about="The same for noise, after the codecs, which remove much of it."),
    ]  # fmt: skip


def _losses(run: History) -> list[Chart]:
    """Each loss, weighted and unweighted. Losses that reach zero cannot be shown on a logarithmic axis."""
    names = list(dict.fromkeys(name for event in run.steps for name in _keys(event, "losses")))
    colours = {name: i for i, name in enumerate(name for name in names if name != "total")}

    def drawn(key: str, wanted: Sequence[str]) -> list[Series]:
        return [
            Series(
                name, points(run.steps, key, name), "main" if name == "total" else "line", True, colours.get(name, 0)
            )
            for name in wanted
        ]

    raw = drawn("losses", [name for name in names if name != "total"])
    return [
        Chart(
            "Losses, weighted",
            "fraction of the total",
            # The sum is logged once, with the losses; it is weighted by definition.
            _positive([*drawn("weighted", [n for n in names if n != "total"]), *drawn("losses", ["total"])]),
            logarithmic=True,
            about="The effect of each term on the generator. A line far below the others has almost no effect.",
        ),
        Chart(
            "Losses, unweighted",
            "before weighting",
            _positive(raw),
            logarithmic=True,
            about="To compare with other runs, whatever their weights.",
        ),
        Chart("Losses that may be negative", "before weighting", [one for one in raw if not _is_positive(one)]),
    ]


def _is_positive(series: Series) -> bool:
    """Almost always: a term that is ramped up starts at zero."""
    return 10 * sum(y > 0 for _, y in series.points) >= 9 * len(series.points)


def _positive(series: Sequence[Series]) -> list[Series]:
    """The values that a logarithmic axis can show."""
    return [replace(one, points=[p for p in one.points if p[1] > 0]) for one in series if _is_positive(one)]


def _keys(event: LogEvent, key: str) -> Sequence[str]:
    values = event.get(key)
    return list(values) if isinstance(values, Mapping) else []


def _adversaries(run: History) -> list[Chart]:
    def drawn(*names: str) -> list[Series]:
        found = (points(run.steps, "discriminator", name) for name in names)
        return [Series(name, at, smooth=True, colour=i) for i, (name, at) in enumerate(zip(names, found, strict=True))]

    return [
        Chart(
            "The discriminator's accuracy",
            "of its verdicts, 0 … 1",
            drawn("accuracy"),
            least=0.0,
            most=1.0,
            about="0.5: it guesses. 1: it has won, and the generator no longer learns from it.",
        ),
        Chart(
            "The discriminator's verdicts",
            "loss, and mean verdict on originals and results",
            drawn("loss", "real", "fake"),
            about="Real and fake stay apart as long as the discriminator sees a difference.",
        ),
    ]


def _length(seconds: float) -> str:
    if round(seconds) < 120:
        return f"{seconds:.0f} s in total"
    return f"{seconds / 60:.1f} min in total" if round(seconds / 60, 1) < 120 else f"{seconds / 3600:.1f} h in total"
