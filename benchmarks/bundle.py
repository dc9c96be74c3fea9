"""Put the result of a training run among the models that come with srgan.

    python -m benchmarks.bundle RUN --name srgan-x4 --family srgan --description TEXT
        [--mean-with RUN [--run-fraction 0.5]] [--command "srgan train …"] [--licence MIT] [--data DIR] [--weights DIR]

Writes weights/NAME.safetensors with kernels as fp16 and a card made of the run's own, `manifest.toml` from the files,
and the documents from the manifest (`benchmarks.model_pages`; a model without a page gets one to be completed). With
--data, Set5 is enlarged by both the run's own numbers and the rounded ones, and fp16 is refused where it costs 0.01 dB.
The run's scores are not taken over: `python -m benchmarks.quality --write` measures them; they stay when the same
network is bundled again with another card. With --mean-with, the model is the mean of two runs' weights, of which one
began with the other's: that is often better than either (Wortsman et al. 2022, arXiv:2203.05482). If only RUN learned
with noise (`generator.noise`), the mean has none. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks import model_pages
from benchmarks import scores as bundled_scores
from srgan_cli.config import EngineOptions
from srgan_cli.errors import SrganError, WeightsError
from srgan_cli.evaluation import pairs
from srgan_cli.evaluation.evaluate import evaluate
from srgan_cli.networks import registry
from srgan_cli.networks.generators import Generator
from srgan_cli.networks.growing import without_noise
from srgan_cli.networks.registry import Card
from srgan_cli.networks.weights import load_generator, load_model, save_weights

MAX_BYTES = 4 << 20
MAX_FP16_COST_DB = 0.01
# A recipe's sections, and the phase of training without which they do not apply; the others concern where and how
# often, which does not affect the result.
_SECTIONS = {
    "data": "",
    "degradation": "",
    "fidelity": "fidelity",
    "adversarial": "adversarial",
    "perceptual": "adversarial",
    "discriminator": "adversarial",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bundle", description="Bundle the result of a run.")
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or its model.safetensors")
    parser.add_argument("--name", required=True, help="FAMILY-xSCALE")
    parser.add_argument("--family", required=True)
    parser.add_argument("--description", required=True, metavar="TEXT", help="what it is for, in one line")
    parser.add_argument("--mean-with", type=Path, metavar="RUN", help="another run: the mean of both is bundled")
    parser.add_argument("--run-fraction", type=float, default=0.5, metavar="0-1", help="how much of RUN is in the mean")
    parser.add_argument("--command", metavar="TEXT", help="what was typed to train it")
    parser.add_argument("--licence", default="MIT")
    parser.add_argument("--data", type=Path, metavar="DIR", help="holds Set5, to measure what fp16 costs")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="another folder than the repository's weights/")
    arguments = parser.parse_args()
    card = Card(arguments.name, arguments.family, arguments.description, arguments.licence)
    try:
        facts = bundle(
            arguments.run,
            card,
            arguments.command,
            data=arguments.data,
            weights=arguments.weights,
            mean_with=arguments.mean_with,
            run_fraction=arguments.run_fraction,
        )
    except SrganError as err:
        raise SystemExit(str(err)) from err
    print(json.dumps(facts))
    return 0


def bundle(
    run: Path,
    card: Card,
    command: str | None,
    *,
    data: Path | None = None,
    weights: Path | None = None,
    mean_with: Path | None = None,
    run_fraction: float = 0.5,
) -> dict[str, object]:
    """Write the run's model, and everything derived from it, into `weights` (None: the repository's); returns a
    summary.

    `card` has name, family, description and licence; the rest comes from the run. `data` holds Set5/xN/low and /high.
    `mean_with` is another run with a network of the same sizes: the mean of both is written, with `run_fraction` of the
    run's weights, and without its noise if the other has none. Raises `WeightsError` if a run contains no model,
    sizes differ, the name is not FAMILY-xSCALE, or the file would be above 4 MiB (also if fp16 loses too much and
    fp32 is too large).
    """
    source, _ = registry.resolve(run)
    entry, generator = registry.describe_file(source), load_generator(source)
    assert entry is not None, "load_generator takes our files only"
    if card.name != f"{card.family}-x{entry.scale}":
        raise WeightsError(f"a model of family {card.family!r} that enlarges {entry.scale} times must be called "
                           f"{card.family}-x{entry.scale}, not {card.name}")  # fmt: skip
    card = replace(card, adversarial=entry.adversarial, recipe=recipe(entry.recipe, command))
    if mean_with is not None:
        other = load_generator(registry.resolve(mean_with)[0])
        mean: dict[str, object] = {"mean_with": mean_with.name, "run_fraction": run_fraction}
        if generator.has_noise and not other.has_noise:
            mean["without_noise"] = True
            generator = without_noise(generator)
        generator = _mean(generator, other, run_fraction)
        card = replace(card, recipe={**card.recipe, **mean})
    folder = registry.weights_folder() if weights is None else weights
    folder.mkdir(parents=True, exist_ok=True)
    card, half, size_bytes = _fitting(generator, card, data)
    _save(folder / f"{card.name}.safetensors", generator, card, half=half)
    bundled_scores.write_manifest(folder)
    model_pages.write(folder, model_pages.OVERVIEW if weights is None else None)
    facts = {"model": card.name, "precision": card.recipe["precision"], "bytes": size_bytes}
    return {**facts, "fp16_cost_db": card.recipe.get("fp16_cost_db"), "adversarial": card.adversarial}


def _mean(one: Generator, other: Generator, fraction: float) -> Generator:
    """The mean of the weights, with `fraction` of `one`. Raises `WeightsError` if their sizes differ."""
    if one.config != other.config or type(one) is not type(other):
        raise WeightsError("the mean of two runs needs networks of the same architecture and sizes")
    theirs = other.state_dict()
    one.load_state_dict(
        {key: fraction * value + (1 - fraction) * theirs[key] for key, value in one.state_dict().items()}
    )
    return one


def _save(path: Path, generator: Generator, card: Card, *, half: bool) -> None:
    """Write the file; keep the existing one's scores if only the card differs."""
    old = registry.describe_file(path) if path.exists() else None
    before = bundled_scores.tensors_sha256(path) if old is not None else ""
    save_weights(path, generator, card, half=half)
    if old is not None and bundled_scores.tensors_sha256(path) == before:
        bundled_scores.set_scores(path, old.scores)


def _fitting(generator: Generator, card: Card, data: Path | None) -> tuple[Card, bool, int]:
    """The card with the cost of fp16, whether to use it, and the file's resulting size."""
    with tempfile.TemporaryDirectory() as temporary:
        trial, exact = Path(temporary) / f"{card.name}.safetensors", Path(temporary) / "exact.safetensors"
        half, known = True, {}
        if data is not None:
            save_weights(trial, generator, card, half=True)
            save_weights(exact, generator, card)
            cost_db = fp16_cost(exact, trial, data)
            half, known = cost_db < MAX_FP16_COST_DB, {"fp16_cost_db": round(cost_db, 4)}
        card = replace(card, recipe={**card.recipe, "precision": "fp16" if half else "fp32", **known})
        save_weights(trial, generator, card, half=half)
        size_bytes = trial.stat().st_size
    if size_bytes > MAX_BYTES:
        why = "" if half else f" in fp32, and fp16 costs {known['fp16_cost_db']} dB on Set5"
        raise WeightsError(f"{card.name} takes {size_bytes:,} bytes{why}; bundled models have at most {MAX_BYTES:,}")
    return card, half, size_bytes


def fp16_cost(exact: Path, rounded: Path, data: Path) -> float:
    """How many dB lower PSNR Y on Set5 is for the second file than for the first, both run in fp32; may be negative.

    `data` holds Set5/xN/low and Set5/xN/high. Raises `WeightsError` if a picture of Set5 cannot be used.
    """
    psnr_y_db = [_set5(path, data) for path in (exact, rounded)]
    return psnr_y_db[0] - psnr_y_db[1]


def _set5(path: Path, data: Path) -> float:
    from srgan_cli.engine.upscaler import Upscaler

    model = load_model(path)
    folder = data / "Set5" / f"x{model.scale}"
    failures: list[str] = []
    found = pairs.find_pairs(folder / "high", folder / "low", model.scale)
    taken = pairs.read_pairs(
        found.files,
        scale=model.scale,
        on_failure=failures.append,
    )
    enlarge = Upscaler(model, EngineOptions(device="cpu", precision="fp32")).upscale
    mean = evaluate(enlarge, taken, scale=model.scale).mean
    if failures or found.missing:
        raise WeightsError("\n".join([*found.missing, *failures]))
    return mean["psnr_y_db"]


def recipe(of_run: Mapping[str, object], command: str | None) -> dict[str, object]:
    """A run's recipe as stored: its length, the command, and every setting of the sections that applied.

    Stored in full and not as differences from the preset, which may change. Recipes that do not come from `srgan train`
    are stored unchanged.
    """
    config = of_run.get("config")
    kept = {key: value for key, value in of_run.items() if key != "config"}
    if command:
        kept["command"] = re.sub(r"\s+", " ", command).strip()
    if not isinstance(config, Mapping):
        return kept
    phase = config.get("phase")
    for key in ("preset", "phase", "seed", *(["fidelity_fraction"] if phase == "both" else [])):
        if key in config:
            kept[key] = config[key]
    for section, of_phase in _SECTIONS.items():
        if of_phase in ("", phase) or phase == "both":
            values = config.get(section)
            if isinstance(values, Mapping):
                kept[section] = _telling(section, values)
    return kept


def _telling(section: str, values: Mapping[str, object]) -> dict[str, object]:
    """Without the settings of a degradation that was not used; and without None, since TOML has no null."""
    if section == "degradation" and values.get("kind") == "bicubic":
        return {"kind": "bicubic"}
    return {key: value for key, value in values.items() if value is not None}


if __name__ == "__main__":
    raise SystemExit(main())
