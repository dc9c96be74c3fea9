"""The best two passes for ×8, and how much detail the first should have: on originals downscaled by 8.

    python -m benchmarks.passes --data DIR --vgg-weights FILE [--set BSD100] [--max 16] [--jpeg QUALITY]

DIR is that of `benchmarks.quality`; the low pictures are made by `imaging.bicubic`. Prints a JSON line for each
detail of the first pass, with the default detail in the second, and one for another order: PSNR of Y in dB and VGG19's
distance. With --jpeg the low pictures are compressed, the first pass is `photo`, and there is a line for each model of
the second pass.
"""

from __future__ import annotations

import json

import numpy as np

from benchmarks import scores as bundled_scores
from benchmarks.quality import choose_metrics, compressed, one_set_parser
from srgan_cli.config import DEFAULT_DETAIL, EngineOptions
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.evaluation import pairs
from srgan_cli.evaluation.evaluate import score
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.networks.weights import load_model

SCALE = 8
_DETAILS = (0.0, 0.3, 0.45, 0.6, 0.75, DEFAULT_DETAIL)
CLEAN = (*((f"srgan-x2@{detail:g}", "srgan-x4") for detail in _DETAILS), ("srgan-x4", "fidelity-x2"))
COMPRESSED = tuple(("photo-x2", second) for second in ("fidelity-x4", "srgan-x4", "photo-x4"))
_VGG = "vgg19_conv3_4"


def main() -> int:
    parser = one_set_parser("passes", "Which two passes make ×8.", max_pictures=16)
    parser.add_argument("--jpeg", type=int, metavar="QUALITY", help="of small pictures that were compressed")
    arguments = parser.parse_args()
    chains = CLEAN if arguments.jpeg is None else COMPRESSED
    upscalers = {chain: Upscaler([load_model(name) for name in chain], EngineOptions("cpu")) for chain in chains}
    metrics = choose_metrics(("vgg19",), arguments.vgg_weights, half=True, device="cpu")
    found: dict[tuple[str, str], list[tuple[float, float]]] = {chain: [] for chain in chains}
    originals, _ = bundled_scores.pair_folders(arguments.data, arguments.test_set, 4)
    for path in sorted(originals.iterdir())[: arguments.max]:
        whole = pairs.read_rgb(path)
        high = whole[: whole.shape[0] // SCALE * SCALE, : whole.shape[1] // SCALE * SCALE]
        low = bicubic(high, high.shape[1] // SCALE, high.shape[0] // SCALE)
        if arguments.jpeg is not None:
            low = compressed(low, arguments.jpeg)
        for chain, upscaler in upscalers.items():
            scored = score(path.name, upscaler.upscale(low), high, scale=SCALE, extra=metrics)
            found[chain].append((scored.scores.psnr_y_db, scored.extra[_VGG]))
    for (first, second), values in found.items():
        psnr_db, distance = np.mean(values, axis=0)
        row = {"first": first, "second": second, "psnr_y_db": round(float(psnr_db), 3), _VGG: round(float(distance), 4)}
        print(json.dumps(row))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
