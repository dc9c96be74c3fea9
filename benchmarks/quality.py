"""How close results come to the originals: all scores of models on the field's test sets, beside bicubic interpolation.

    python -m benchmarks.quality --data DIR [--vgg-weights FILE] [--model NAME …] [--sets SET …] [--write | --check]

Without --model, of every model that comes with srgan, and of the blends between `fidelity` and `srgan`. Prints one JSON
line per set and method, with the numbers that `srgan evaluate` gives, by the same functions and conventions
(`srgan_cli.evaluation.metrics`).

- `Set5`, `Set14`, `BSD100`: DIR holds `SET/xN/low/` and `SET/xN/high/` with pictures of the same names, the files of
  the field, whose small pictures are made by MATLAB's `imresize` (the ones of SelfExSR will do). Where `SET/x2/high/`
  is missing, `SET/x4/high/` has the originals: in BSD100 they are the same files.
- `Set14-jpeg30` and its like: the same, with the small pictures compressed as JPEG of that quality (4:2:0, by Pillow).
  The bundled `photo` and `srgan` models only, unless both --model and --sets name others (whose scores are not kept).
- `examples`: the middle of each of our own photos, downscaled by `evaluation.bicubic`. Needs no DIR.

`--write` keeps the scores: in the models' files, the manifest and the documents, after each set. `--check` compares
with what is kept and ends with 1 where a number differs by more than 0.01 dB or 0.002.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import numpy as np

from benchmarks import model_pages
from benchmarks import scores as bundled_scores
from benchmarks.scores import Scores
from srgan_cli.config import EngineOptions, Precision
from srgan_cli.errors import SettingsError, SrganError
from srgan_cli.evaluation import further, pairs
from srgan_cli.evaluation.evaluate import (
    Enlarge,
    Evaluation,
    Metric,
    NamedPair,
    bicubic_enlarger,
    lanczos_enlarger,
    side_by_side,
)
from srgan_cli.evaluation.session import load_upscalers
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.imaging.image import Pixels
from srgan_cli.networks import registry
from srgan_cli.networks.registry import Entry
from srgan_cli.upscaling.session import select

if TYPE_CHECKING:
    from srgan_cli.engine.upscaler import Upscaler
    from srgan_cli.networks.features import VGGFeatures

_FLOORS = ("bicubic", "lanczos")
_TOLERANCE_DB, _TOLERANCE = 0.01, 0.002
_VGG_LAYER = "conv3_4"
_TELL_EVERY_S = 10.0

# A fixed list, not the folder's contents: another photo would change every model's score.
EXAMPLES = tuple(
    Path(__file__).parent.parent / "examples" / name for name in ("astronaut.png", "cat.jpg", "coffee.png")
)
_EXAMPLE_PX = 192  # NIQE needs two blocks of 96 px, and a test enlarges all of them with all models


def main() -> int:
    arguments = _parser().parse_args()
    try:
        return _run(arguments)
    except SrganError as err:
        raise SystemExit(str(err)) from err


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description="All scores on test sets.")
    parser.add_argument("--data", type=Path, metavar="DIR", help="holds SET/xN/low and SET/xN/high")
    parser.add_argument("--model", action="append", metavar="NAME", help="may be repeated; default: all bundled ones")
    parser.add_argument("--sets", nargs="+", metavar="SET", help=f"default: {' '.join(bundled_scores.SETS)}")
    parser.add_argument("--metrics", nargs="*", choices=further.NAMES, default=["niqe"], help="beside PSNR and SSIM")
    parser.add_argument("--vgg-weights", type=Path, metavar="FILE", help="adds vgg19, with these weights")
    parser.add_argument(
        "--vgg-precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="bf16 takes half as long on CPUs that multiply it; the distance fell by .0002 to .0008 (bicubic, BSD100)",
    )
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32", help="of the models")
    parser.add_argument("--device", default="cpu", help="as in srgan upscale")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="keep the scores, in the models and the documents")
    what.add_argument("--check", action="store_true", help="compare with the scores that are kept")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    keeping = arguments.write or arguments.check
    metrics = choose_metrics(
        arguments.metrics, arguments.vgg_weights, half=arguments.vgg_precision == "bf16", device=arguments.device
    )
    engine = EngineOptions(device=arguments.device, precision=cast(Precision, arguments.precision))
    sets = arguments.sets or (bundled_scores.SETS if arguments.data else (bundled_scores.EXAMPLES,))
    apart: list[str] = []
    for scale, sources in _sources(arguments).items():
        before = _networks(sources)
        upscalers = load_upscalers(sources, scale, engine, taken=_FLOORS)
        for test_set in sets:
            asked = arguments.model and arguments.sets and not keeping  # so that nothing is left out
            chosen = {name: one for name, one in upscalers.items() if asked or bundled_scores.concerns(name, test_set)}
            if not chosen:
                print(f"x{scale} {test_set}: no model here keeps a score of it", file=sys.stderr)
                continue
            methods = {**_baselines(scale, lanczos=not keeping), **{name: one.upscale for name, one in chosen.items()}}
            found = measure(test_set, scale, methods, metrics, arguments.data)
            _print(test_set, scale, found, upscalers)
            fresh = _as_kept(found, test_set)
            if arguments.write:
                if _networks(sources) != before:  # another model was bundled during the measurement
                    raise SettingsError("a model was replaced while it was measured; measure again")
                write(scale, fresh)
            if arguments.check:
                apart += [line for name in fresh for line in differences(name, _kept(name, scale), fresh[name])]
    for line in apart:
        print(line, file=sys.stderr)
    return 1 if apart else 0


def _networks(sources: Iterable[str]) -> dict[str, str]:
    """The weights of the bundled models behind these sources, and of those they are interpolated with, as hashes."""
    names = {registry.split_detail(source)[0] for source in sources}
    entries = [entry for entry in registry.entries() if entry.name in names]
    return {
        one.name: bundled_scores.tensors_sha256(one.path)
        for entry in entries
        for one in (entry, registry.start_of(entry))
        if one is not None
    }


def _sources(arguments: argparse.Namespace) -> dict[int, list[str]]:
    """For each scale, what is measured, as arguments of `load_model`.

    A name means the same as in `srgan upscale`; if scores are stored, all variants of the model with stored scores.
    """
    scales: dict[int, list[str]] = {}
    if arguments.model and not (arguments.write or arguments.check):
        for model in arguments.model:
            for scale in select(model).scales:
                scales.setdefault(scale, []).append(model)
        return dict(sorted(scales.items()))
    if arguments.write and arguments.precision != "fp32":
        raise SettingsError("the scores that are kept are those in fp32; leave --precision out")
    for entry in _bundled(arguments.model):
        scales.setdefault(entry.scale, []).extend(bundled_scores.sources(entry))
    return dict(sorted(scales.items()))


def _bundled(names: Sequence[str] | None) -> list[Entry]:
    """The models with these names and families; None: all. Raises `SettingsError` for models that are not bundled."""
    known = registry.entries()
    for name in names or ():
        if not any(name in (entry.name, entry.family) for entry in known):
            raise SettingsError(f"{name} did not come with srgan, so no scores of it are kept")
    return [entry for entry in known if not names or entry.name in names or entry.family in names]


def _as_kept(found: Mapping[str, Evaluation], test_set: str) -> dict[str, dict[str, dict[str, float]]]:
    """The new scores of each model with stored scores, and bicubic."""
    fresh: dict[str, dict[str, dict[str, float]]] = {}
    for method, evaluation in found.items():
        name, key = bundled_scores.score_name(method, test_set)
        fresh.setdefault(name, {})[key] = bundled_scores.kept(evaluation.mean)
    return fresh


def _baselines(scale: int, *, lanczos: bool) -> dict[str, Enlarge]:
    baselines = {"bicubic": bicubic_enlarger(scale)}
    return {**baselines, "lanczos": lanczos_enlarger(scale)} if lanczos else baselines


def _print(test_set: str, scale: int, found: Mapping[str, Evaluation], upscalers: Mapping[str, Upscaler]) -> None:
    for method, evaluation in found.items():
        facts: dict[str, object] = {"set": test_set, "model": method, "scale": scale}
        if method in upscalers:
            compute = upscalers[method].compute
            facts |= {"device": str(compute.device), "precision": compute.precision}
        scores = {key: round(value, 4) for key, value in evaluation.mean.items()}
        print(json.dumps({**facts, **scores, "pictures": len(evaluation.pictures)}), flush=True)


# ----------------------------------------------------------------------------------------------------------- measuring


def measure(
    test_set: str, scale: int, methods: Mapping[str, Enlarge], metrics: Sequence[Metric], data: Path | None
) -> dict[str, Evaluation]:
    """All numbers of these methods on one set; reports its progress on stderr.

    `data` is required for every set but `examples`. Raises `SettingsError` if it is missing, `NothingToDoError` if it
    does not contain the set, `PictureError` for a picture that cannot be used, since the mean over other pictures would
    not be comparable.
    """
    name, quality = bundled_scores.split_name(test_set)
    taken = _examples(scale) if name == bundled_scores.EXAMPLES else _from_folder(name, data, scale)
    if quality is not None:
        taken = ((one, compressed(low, quality), high) for one, low, high in taken)
    label = f"x{scale} {test_set}, {len(methods)} methods"
    return side_by_side(methods, _told(taken, label), scale=scale, extra=metrics)


def _examples(scale: int) -> Iterator[NamedPair]:
    for path in EXAMPLES:
        whole = pairs.read_rgb(path)
        top, left = ((side - _EXAMPLE_PX) // 2 for side in whole.shape[:2])
        high = whole[top : top + _EXAMPLE_PX, left : left + _EXAMPLE_PX]
        assert high.shape[:2] == (_EXAMPLE_PX, _EXAMPLE_PX), f"{path.name} is too small"
        yield path.name, bicubic(high, _EXAMPLE_PX // scale, _EXAMPLE_PX // scale), high


def _from_folder(name: str, data: Path | None, scale: int) -> Iterator[NamedPair]:
    if data is None:
        raise SettingsError(f"{name} is not among our files; --data DIR says where it is")
    found = pairs.find_pairs(*bundled_scores.pair_folders(data, name, scale), scale)
    if found.missing:
        raise SettingsError("\n".join(found.missing))
    failures: list[str] = []
    yield from pairs.read_pairs(found.files, scale=scale, on_failure=failures.append)
    if failures:
        raise SettingsError("\n".join(failures))


def one_set_parser(module: str, description: str, *, max_pictures: int) -> argparse.ArgumentParser:
    """The options of a benchmark on (at most N) pictures of one set: data, vgg_weights, test_set, max."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=description)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds SET/xN/low and SET/xN/high")
    parser.add_argument("--vgg-weights", type=Path, required=True, metavar="FILE")
    parser.add_argument("--set", dest="test_set", default="BSD100", metavar="SET")
    parser.add_argument("--max", type=int, default=max_pictures, metavar="N", help="at most N pictures")
    return parser


def compressed(low: Pixels, quality: int) -> Pixels:
    """(H, W, 1 or 3) of uint8 decoded from a JPEG of this quality, with chroma at half the size (4:2:0)."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(low[..., 0] if low.shape[2] == 1 else low).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file)).reshape(low.shape)


def _told(taken: Iterable[NamedPair], label: str) -> Iterator[NamedPair]:
    began_s = told_s = time.monotonic()
    count = 0
    for count, pair in enumerate(taken, 1):
        yield pair
        if time.monotonic() - told_s >= _TELL_EVERY_S:
            told_s = time.monotonic()
            print(f"{label}: {count} pictures, {told_s - began_s:.0f} s", file=sys.stderr, flush=True)
    print(f"{label}: all {count} pictures, {time.monotonic() - began_s:.1f} s", file=sys.stderr, flush=True)


def choose_metrics(
    names: Sequence[further.Name], vgg_weights: Path | None, *, half: bool, device: str
) -> tuple[Metric, ...]:
    """The metrics of these names, and VGG19's distance if its weights are given. Raises as further.choose_metrics."""
    if vgg_weights is None:
        return further.choose_metrics(tuple(names), vgg_weights=None, device=device).metrics
    from srgan_cli.networks.features import load_features

    eye = load_features("vgg19", (_VGG_LAYER,), "before", vgg_weights).to(device)
    others = tuple(name for name in names if name != "vgg19")
    return (*further.choose_metrics(others, vgg_weights=None, device=device).metrics, vgg_metric(eye, half=half))


def vgg_metric(eye: VGGFeatures, *, half: bool) -> Metric:
    """Like `further`'s VGG19 metric, but each original is processed once for all methods, and in bf16 with `half` where
    the device multiplies it: on a CPU that does not, it would take a hundred times as long.

    That metric crops pictures above 1024 px to their middle; the test sets have none.
    """
    import torch

    from srgan_cli.dataset.low_pictures import to_tensor
    from srgan_cli.engine.backends.pytorch import cpu_convolves
    from srgan_cli.evaluation.perceptual import relative_difference

    device = next(eye.parameters()).device
    half = half and (device.type != "cpu" or cpu_convolves(torch.bfloat16))
    last: list[tuple[Pixels, torch.Tensor]] = []  # the last original, and its features

    def features_of(pixels: Pixels) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            found: torch.Tensor = eye(to_tensor(pixels).to(device))[eye.layers[-1]]
        return found.float()

    def distance(result: Pixels, original: Pixels) -> float | None:
        if min(original.shape[:2]) < eye.minimum_size_px:
            return None
        if not last or last[0][0] is not original:
            last[:] = [(original, features_of(original))]
        return relative_difference(features_of(result), last[0][1])

    return Metric(f"vgg19_{eye.layers[-1]}", distance)


# ------------------------------------------------------------------------------------------------ keeping and checking


def write(scale: int, fresh: Mapping[str, Scores]) -> None:
    """Merge these scores, of bundled models and `bicubic`, into the stored ones; then update manifest and documents.

    Raises `WeightsError` if a file is damaged or cannot be written.
    """
    for name, scores in fresh.items():
        total = bundled_scores.merged(_kept(name, scale), scores)
        if name == "bicubic":
            bundled_scores.set_bicubic_scores(scale, total)
        else:
            bundled_scores.set_scores(registry.find(name).path, total)
    folder = registry.weights_folder()
    bundled_scores.write_manifest(folder)
    model_pages.write(folder, model_pages.OVERVIEW)


def _kept(name: str, scale: int) -> Scores:
    return bundled_scores.bicubic_scores(scale) if name == "bicubic" else registry.find(name).scores


def differences(name: str, kept: Scores, fresh: Scores) -> list[str]:
    """A sentence for each number of `fresh` that is missing in `kept`, or differs: by over 0.01 dB or 0.002."""
    lines = []
    for test_set, values in fresh.items():
        for key, value in values.items():
            old = kept.get(test_set, {}).get(key)
            tolerance = _TOLERANCE_DB if key.endswith("_db") else _TOLERANCE
            if old is None:
                lines.append(f"{name}, {test_set}: {key} is {value}, and none is kept")
            elif not abs(value - old) <= tolerance + 1e-9:  # so that NaN counts as different
                lines.append(f"{name}, {test_set}: {key} is {value}, and {old} is kept")
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
