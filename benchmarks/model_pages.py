"""Writes what the documents say about the bundled models, from the manifest.

    python -m benchmarks.model_pages

Rewrites the facts and the scores in each model's page (weights/NAME.md) and the tables of docs/MODELS.md between
`<!-- KEY:begin -->` and `<!-- KEY:end -->`, and models/NAME.json for OpenModelDB. The rest of a page is written by
hand. A new model gets a page with `TODO` where text is needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import scores as bundled_scores
from srgan_cli.config import DEFAULT_DETAIL
from srgan_cli.errors import WeightsError
from srgan_cli.networks import openmodeldb, registry
from srgan_cli.networks.registry import Entry

OVERVIEW = Path(__file__).parent.parent / "docs" / "MODELS.md"
TODO = "TODO"

_COMMAND = "python -m benchmarks.quality --data DIR --vgg-weights FILE"
_COLUMNS = {
    "psnr_y_db": ("PSNR Y, dB ↑", 2),
    "ssim_y": ("SSIM Y ↑", 4),
    "psnr_y_unrounded_db": ("Y unrounded, dB ↑", 2),
    "vgg19_conv3_4": ("VGG19 ↓", 3),
    "niqe": ("NIQE ↓", 2),
    "consistency_db": ("consistency, dB ↑", 1),
}
_IN_OVERVIEW = ("psnr_y_db", "ssim_y", "vgg19_conv3_4", "niqe", "consistency_db")
_OF_JPEG = ("psnr_y_db", "vgg19_conv3_4", "niqe")
# The order in which families are shown; others follow by name.
_FAMILIES = ("fidelity", "srgan", "photo", "fast")


def write(folder: Path, overview: Path | None) -> None:
    """Update the pages in `folder`, and `overview` (None: no such page), from its manifest.

    Raises `WeightsError` if a page lacks its marks or cannot be written.
    """
    entries = in_order(folder)
    for entry in entries:
        bundled_scores.write_text(page_path(entry), page(entry))
    if overview is not None:
        bundled_scores.write_text(overview, overview_page(overview.read_text(encoding="utf-8"), entries))
        if (records := overview.parent.parent / "models").is_dir():
            write_openmodeldb(entries, records)


def write_openmodeldb(entries: Iterable[Entry], folder: Path) -> None:
    """Write a record for OpenModelDB for each model. Its date is kept as long as the model's file stays the same."""
    for entry in entries:
        path = folder / f"{entry.name}.json"
        old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        date = old["date"] if old is not None and old["resources"][0]["sha256"] == entry.sha256 else None
        subject = openmodeldb.Subject(entry.name, entry, entry.architecture, entry.config, entry.scale)
        bundled_scores.write_text(path, openmodeldb.to_json(openmodeldb.record(subject, (entry.path,), date=date)))


def in_order(folder: Path) -> list[Entry]:
    """The models of a weights folder in the documents' order: by scale, larger ones first, then by family."""

    def place(entry: Entry) -> tuple[int, int, str]:
        known = _FAMILIES.index(entry.family) if entry.family in _FAMILIES else len(_FAMILIES)
        return -entry.scale, known, entry.name

    files = folder.glob("*.safetensors")
    return sorted((entry for path in files if (entry := registry.describe_file(path)) is not None), key=place)


def page_path(entry: Entry) -> Path:
    return entry.path.with_suffix(".md")


def page(entry: Entry) -> str:
    """A model's page, up to date. Raises `WeightsError` if the page exists and lacks its marks."""
    path = page_path(entry)
    text = path.read_text(encoding="utf-8") if path.exists() else _skeleton(entry)
    text = replaced(text, "facts", _facts(entry), path)
    return replaced(text, "scores", _scores(entry), path)


def overview_page(text: str, entries: Sequence[Entry]) -> str:
    """docs/MODELS.md with its tables up to date."""
    tables: dict[str, Callable[[Sequence[Entry]], Iterable[str]]] = {
        "models": _models,
        "scores": _all_scores,
        "detail": _details,
        "jpeg": _all_jpeg,
    }
    for key, table in tables.items():
        text = replaced(text, f"table:{key}", "\n".join(table(entries)).rstrip("\n"), OVERVIEW)
    return text


def replaced(text: str, key: str, inside: str, path: Path) -> str:
    """`text` with `inside` between the marks of `key`. Raises `WeightsError` unless they are there once."""
    begin, end = f"<!-- {key}:begin -->", f"<!-- {key}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise WeightsError(f"{path} must have {begin} and, below, {end}, once each")
    before, after = text[: text.index(begin)], text[text.index(end) :]
    return f"{before}{begin}\n{inside}\n{after}"


# -------------------------------------------------------------------------------------------------------------- tables


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    titles = list(titles)
    lines = [titles, ["---"] * len(titles), *map(list, rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _number(values: Mapping[str, float], key: str) -> str:
    """`28.42`, `.8101`; a dash if not measured, such as NIQE of small pictures."""
    if key not in values:
        return "–"
    text = f"{values[key]:.{_COLUMNS[key][1]}f}"
    return text.removeprefix("0") if key in ("ssim_y", "vgg19_conv3_4") else text


def _row(method: str, values: Mapping[str, float], keys: Iterable[str]) -> list[str]:
    return [method, *(_number(values, key) for key in keys)]


def _link(entry: Entry) -> str:
    return f"[`{entry.name}`](../weights/{entry.name}.md)"


def _models(entries: Sequence[Entry]) -> list[str]:
    rows = [
        (_link(e), f"×{e.scale}", _architecture(e), f"{e.parameters:,}", _megabytes(e), e.description) for e in entries
    ]
    return _table(("Model", "Scale", "Architecture", "Parameters", "File", "For"), rows)


def _variants(entry: Entry) -> dict[str, bundled_scores.Scores]:
    """The rows of a model: one, or one for the default interpolation and one for detail 1."""
    if registry.start_of(entry) is None:
        return {f"`{entry.name}`": entry.scores}
    suffix = f"@{DEFAULT_DETAIL:g}"
    blend = {key.removesuffix(suffix): values for key, values in entry.scores.items() if key.endswith(suffix)}
    return {f"`{entry.name}` (that is, `{suffix}`)": blend, f"`{entry.name}@1`": entry.scores}


def _beside(entries: Iterable[Entry], scale: int) -> dict[str, bundled_scores.Scores]:
    """Bicubic and the models of one scale."""
    variants = [variant for entry in entries if entry.scale == scale for variant in _variants(entry).items()]
    return {"bicubic": bundled_scores.bicubic_scores(scale), **dict(variants)}


def _all_scores(entries: Sequence[Entry]) -> Iterator[str]:
    """A table for each scale: for each set, bicubic and the models."""
    for scale in _scales(entries):
        rows: list[list[str]] = []
        for test_set in (*bundled_scores.CLEAN_SETS, bundled_scores.EXAMPLES):
            scores = {name: of.get(test_set) for name, of in _beside(entries, scale).items()}
            rows += [[test_set, *_row(name, values, _IN_OVERVIEW)] for name, values in scores.items() if values]
        yield from _section(f"×{scale}", _table(("Set", "", *(_COLUMNS[key][0] for key in _IN_OVERVIEW)), rows))


def _all_jpeg(entries: Sequence[Entry]) -> Iterator[str]:
    """A table for each scale and set: a column for each quality, three numbers in each cell."""
    for scale in _scales(entries):
        for base in bundled_scores.JPEG_SETS:
            sets = [base, *(f"{base}-jpeg{quality}" for quality in bundled_scores.JPEG_QUALITIES)]
            rows = [
                [name, *(" / ".join(_row("", of.get(one, {}), _OF_JPEG)[1:]) for one in sets)]
                for name, of in _beside(entries, scale).items()
                if any(one in of for one in sets[1:])
            ]
            titles = (
                f"{base}, ×{scale}",
                "not compressed",
                *(f"JPEG {quality}" for quality in bundled_scores.JPEG_QUALITIES),
            )
            if rows:
                yield from _section("", _table(titles, rows))


def _details(entries: Sequence[Entry]) -> Iterator[str]:
    """A table for each model that can be interpolated: from the model that it was fine-tuned from to itself."""
    for entry in entries:
        start = registry.start_of(entry)
        if start is None:
            continue
        prefix = f"{bundled_scores.DETAIL_SET}@"
        between = {key.removeprefix(prefix): of for key, of in entry.scores.items() if key.startswith(prefix)}
        ends = {
            "0": start.scores.get(bundled_scores.DETAIL_SET, {}),
            "1": entry.scores.get(bundled_scores.DETAIL_SET, {}),
        }
        scores = {**ends, **between}
        rows = [_row(detail, scores[detail], _IN_OVERVIEW) for detail in sorted(scores, key=float)]
        titles = (f"`{entry.name}`, {bundled_scores.DETAIL_SET}: detail", *(_COLUMNS[key][0] for key in _IN_OVERVIEW))
        yield from _section("", _table(titles, rows))


def _section(title: str, table: Sequence[str]) -> Iterator[str]:
    yield from ([f"### {title}", ""] if title else [])
    yield from table
    yield ""


def _scales(entries: Iterable[Entry]) -> list[int]:
    return sorted({entry.scale for entry in entries}, reverse=True)


# --------------------------------------------------------------------------------------------------------- one model's


def _scores(entry: Entry) -> str:
    """Its scores for each set, below bicubic's."""
    beside = {"bicubic": bundled_scores.bicubic_scores(entry.scale), **_variants(entry)}
    shown = [test_set for test_set in bundled_scores.SETS if test_set in entry.scores]
    rows = [
        _row(f"{_set_title(test_set)}: {name}", of[test_set], _COLUMNS)
        for test_set in shown
        for name, of in beside.items()
        if test_set in of
    ]
    table = _table((f"×{entry.scale}", *(title for title, _ in _COLUMNS.values())), rows)
    about = [
        f"Measured in fp32 by `{_COMMAND}`.",
        "[docs/MODELS.md](../docs/MODELS.md#scores) explains what the numbers mean.",
    ]
    return "\n".join([*table, "", *about])


def _set_title(test_set: str) -> str:
    name, quality = bundled_scores.split_name(test_set)
    return name if quality is None else f"{name}, JPEG {quality}"


def _mean(recipe: Mapping[str, object]) -> str:
    """The runs that the weights are a mean of; empty for a single run."""
    if "mean_with" not in recipe:
        return ""
    fraction = float(str(recipe.get("run_fraction", 0.5)))
    noise = ", without its noise," if recipe.get("without_noise") else ""
    return f"{fraction:g} × this run's{noise} + {1 - fraction:g} × those of `{recipe['mean_with']}`"


def _facts(entry: Entry) -> str:
    recipe = entry.recipe
    facts = [
        ("Kind", "adversarial: may invent texture" if entry.adversarial else "fidelity: close to the original"),
        ("Architecture", _architecture(entry)),
        ("Parameters", f"{entry.parameters:,}, {_precision(entry)} ({_megabytes(entry)})"),
        ("Receptive field", f"{_halo_px(entry)} px around each low-resolution px"),
        ("Trained on", _data(recipe)),
        ("Length", _length(recipe)),
        ("Weights", _mean(recipe)),
        ("Preset", f"`{recipe['preset']}`" if "preset" in recipe else ""),
        ("Command", f"`{recipe['command']}`" if "command" in recipe else ""),
        ("Licence", entry.licence),
    ]
    return "\n".join(_table(("", ""), [(key, value) for key, value in facts if value]))


def _architecture(entry: Entry) -> str:
    settings = entry.config
    return f"`{entry.architecture}`, {settings.get('features')} features, {settings.get('blocks')} blocks"


def _megabytes(entry: Entry) -> str:
    return f"{entry.path.stat().st_size / 1e6:.1f} MB"


def _precision(entry: Entry) -> str:
    dtypes = {dtype for dtype, _ in registry.read_weights_header(entry.path).tensors.values()}
    cost = entry.recipe.get("fp16_cost_db")
    change = "" if cost is None else f"PSNR on Set5 by {-float(str(cost)) or 0.0:+.4f} dB"
    if "F16" in dtypes:
        return "kernels stored as fp16" + (f", which changes {change}" if change else "")
    return "stored as fp32" + (f" (fp16 would change {change})" if change else "")


def _halo_px(entry: Entry) -> int | None:
    import torch

    from srgan_cli.networks.generators import build

    with torch.device("meta"):
        return build(entry.architecture, entry.config).halo_px


def _data(recipe: Mapping[str, object]) -> str:
    """`data` is the settings of a run, or a sentence in recipes that were not written by a run."""
    if isinstance(recipe.get("data"), str):
        return str(recipe["data"])
    if " --lr-dir " in str(recipe.get("command")) and "pictures" in recipe:
        return f"{recipe['pictures']:,} pairs of pictures"  # no degradation is applied to them
    degradation = recipe.get("degradation")
    kind = degradation.get("kind") if isinstance(degradation, Mapping) else None
    how = {"bicubic": ", downscaled by bicubic interpolation", "photo": ", blurred, downscaled, noisy and compressed"}
    return f"{recipe['pictures']:,} pictures{how.get(str(kind), '')}" if "pictures" in recipe else ""


def _length(recipe: Mapping[str, object]) -> str:
    if "steps" not in recipe:
        return ""
    steps = f"{recipe['steps']:,} steps"
    settings = recipe.get(str(recipe.get("phase")), recipe)
    if isinstance(settings, Mapping) and "batch" in settings:
        steps += f" of {settings['batch']} crops of {settings['crop_px']} px"
    seconds = recipe.get("seconds")
    return f"{steps}, in {_duration(float(seconds))}" if isinstance(seconds, int | float) else steps


def _duration(seconds: float) -> str:
    """`55 min`, `2 h 5 min`."""
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


_SKELETON = """# {name}

{description}

## What it is for

TODO: what to give it, and what not.

## Recipe

<!-- facts:begin -->
<!-- facts:end -->

TODO: what it was trained on, on which machine, and why so.

## Curves

TODO: the curves of the run's report.html, and what they show.

## Scores

<!-- scores:begin -->
<!-- scores:end -->

TODO: what they mean for somebody who has to choose a model.

## Speed

TODO: from `python -m benchmarks.speed`.

## Known failures

TODO: what it gets wrong, with a picture.

## Licence and provenance

{licence}. Trained by `srgan train` on 1,026 crops of 512×512 px from 799 freely licensed photographs (CC0, CC BY,
CC BY-SA, Unsplash, "free to use"; no non-commercial terms). Neither the model nor this repository contains any of these
pictures. Set5, Set14, BSD100 and the photos in `examples/` were not used for training.
"""


def _skeleton(entry: Entry) -> str:
    description = re.sub(r"(?<!\.)$", ".", entry.description)
    return _SKELETON.format(name=entry.name, description=description, licence=entry.licence or "TODO: licence")


if __name__ == "__main__":
    write(registry.weights_folder(), OVERVIEW)
