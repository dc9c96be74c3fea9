"""What `--model auto` chooses, and what a wrong choice costs: clean, compressed and noisy copies of a test set.

    python -m benchmarks.auto --data DIR --vgg-weights FILE [--set BSD100] [--max N] [--scale 4] [--markdown]
        [--photo NAME|RUN]

DIR is that of `benchmarks.quality`. Every small picture is saved as a PNG, as a JPEG of several qualities (4:2:0), as a
PNG made of a coarse JPEG, with white noise, and with a palette of few colours, dithered or not; each copy is enlarged
by both models that `auto` chooses from. Prints one JSON line for each kind of copy: how many went to `photo`, and PSNR
of Y (dB) and VGG19's distance with `srgan` for all, with `photo` for all, and with the one that was chosen.
`--markdown` prints the table of docs/MODELS.md instead.
`--photo` puts another model in `photo`'s place.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import scores as bundled_scores
from benchmarks.quality import choose_metrics, compressed, one_set_parser
from srgan_cli.config import DEFAULT_MAX_PIXELS, EngineOptions
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.evaluation import pairs
from srgan_cli.evaluation.evaluate import Metric, score
from srgan_cli.evaluation.session import load_upscalers
from srgan_cli.imaging.image import Pixels
from srgan_cli.upscaling.choice import CLEAN, WORN, choose_model

_VGG = "vgg19_conv3_4"


def main() -> int:
    parser = one_set_parser("auto", "What --model auto chooses.", max_pictures=10**6)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--photo", default=WORN, metavar="NAME|RUN", help="another model in its place")
    arguments = parser.parse_args()
    folders = bundled_scores.pair_folders(arguments.data, arguments.test_set, arguments.scale)
    metrics = choose_metrics((), arguments.vgg_weights, half=True, device="cpu")
    made = load_upscalers((CLEAN, arguments.photo), arguments.scale, EngineOptions("cpu"))
    upscalers = dict(zip((CLEAN, WORN), made.values(), strict=True))
    tallies = measure(folders, arguments.scale, upscalers, metrics, arguments.max)
    print(markdown(tallies) if arguments.markdown else "\n".join(json.dumps(row(one)) for one in tallies))
    return 0


# -------------------------------------------------------------------------------------------------------------- copies


def _file(pixels: Pixels, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(data, kind, **options)
    return data.getvalue()


def png(pixels: Pixels, _number: int) -> bytes:
    return _file(pixels, "PNG")


def jpeg(quality: int) -> Callable[[Pixels, int], bytes]:
    return lambda pixels, _number: _file(pixels, "JPEG", quality=quality, subsampling="4:2:0")


def _png_of_jpeg(pixels: Pixels, number: int) -> bytes:
    return png(compressed(pixels, 50), number)


def noisy(sigma: float) -> Callable[[Pixels, int], bytes]:
    def copy(pixels: Pixels, number: int) -> bytes:
        noise = np.random.default_rng(number).normal(0.0, sigma, pixels.shape)
        return _file((pixels + noise).round().clip(0, 255).astype(np.uint8), "PNG")

    return copy


def palette(colours: int, *, dithered: bool) -> Callable[[Pixels, int], bytes]:
    """The median cut of the picture, with or without Floyd and Steinberg's dithering."""

    def copy(pixels: Pixels, _number: int) -> bytes:
        colour = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
        few = colour.quantize(colours, Image.Quantize.MEDIANCUT)
        if dithered:
            few = colour.quantize(palette=few, dither=Image.Dither.FLOYDSTEINBERG)
        data = io.BytesIO()
        few.save(data, "PNG")
        return data.getvalue()

    return copy


COPIES: dict[str, Callable[[Pixels, int], bytes]] = {
    "clean (PNG)": png,
    **{f"JPEG {quality}": jpeg(quality) for quality in (97, 95, 90, 75, 50, 30)},
    "PNG of a JPEG 50": _png_of_jpeg,
    "noise of 3 levels": noisy(3.0),
    "noise of 6 levels": noisy(6.0),
    "noise of 12 levels": noisy(12.0),
    **{f"{count} colours": palette(count, dithered=False) for count in (256, 64, 16)},
    **{f"{count} colours, dithered": palette(count, dithered=True) for count in (256, 64, 16)},
}


def _decoded(data: bytes, channels: int) -> Pixels:
    picture = Image.open(io.BytesIO(data))
    pixels = np.asarray(picture.convert("RGB" if channels == 3 else "L") if picture.mode == "P" else picture)
    return pixels.reshape(*pixels.shape[:2], channels)


# ----------------------------------------------------------------------------------------------------------- measuring


@dataclass
class CopyScores:
    """For one kind of copy and for each picture, the choice, and (PSNR, distance) with each model."""

    copy: str
    chosen: list[str] = field(default_factory=list)
    scores: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {CLEAN: [], WORN: []})

    def mean(self, model: str | None) -> tuple[float, float]:
        """PSNR in dB and VGG19's distance, with one model for all, or (None) with the chosen ones."""
        names = self.chosen if model is None else [model] * len(self.chosen)
        psnr, distance = np.mean([self.scores[name][i] for i, name in enumerate(names)], axis=0)
        return float(psnr), float(distance)

    @property
    def worn(self) -> float:
        """The fraction of pictures that went to `photo`."""
        return self.chosen.count(WORN) / len(self.chosen)


def measure(
    folders: tuple[Path, Path], scale: int, upscalers: dict[str, Upscaler], metrics: Sequence[Metric], max_pictures: int
) -> list[CopyScores]:
    """Every original of a folder with its low picture, as each of `COPIES`, enlarged with both models."""
    tallies = [CopyScores(copy) for copy in COPIES]
    files = pairs.find_pairs(*folders, scale).files[:max_pictures]
    for number, one in enumerate(files):
        print(f"{number}/{len(files)} {one.name}", file=sys.stderr, flush=True)
        assert one.low is not None
        low, high = pairs.read_rgb(one.low), pairs.read_rgb(one.high)
        for tally, copy in zip(tallies, COPIES.values(), strict=True):
            data = copy(low, number)
            tally.chosen.append(choose_model(data, max_pixels=DEFAULT_MAX_PIXELS).model)
            worn = _decoded(data, low.shape[2])
            for model, upscaler in upscalers.items():
                found = score(one.name, upscaler.upscale(worn), high, scale=scale, extra=metrics)
                tally.scores[model].append((found.scores.psnr_y_db, found.extra[_VGG]))
    return tallies


def row(tally: CopyScores) -> dict[str, object]:
    values: dict[str, object] = {"copy": tally.copy, "photo_fraction": round(tally.worn, 3)}
    for name, model in ((CLEAN, CLEAN), (WORN, WORN), ("auto", None)):
        psnr, distance = tally.mean(model)
        values |= {f"{name}_psnr_y_db": round(psnr, 3), f"{name}_{_VGG}": round(distance, 4)}
    return values


def markdown(tallies: Sequence[CopyScores]) -> str:
    """The same as a table with PSNR Y in dB / VGG19 in each cell."""
    lines = [f"| Copy | to `{WORN}` | `{CLEAN}` | `{WORN}` | `auto` |", "| --- | --- | --- | --- | --- |"]
    for tally in tallies:
        cells = ["{:.2f} / {:.3f}".format(*tally.mean(model)) for model in (CLEAN, WORN, None)]
        lines.append(f"| {tally.copy} | {tally.worn:.0%} | {' | '.join(cells)} |".replace("%", " %"))
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
