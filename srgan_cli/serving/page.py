"""The pages: the upload page, the one that asks for the token, and the comparison of two pictures under a slider."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources

from srgan_cli.comparison.embedding import render
from srgan_cli.comparison.places import most_different
from srgan_cli.comparison.scenes import read_shown, together
from srgan_cli.comparison.viewer import Exhibit, build_page
from srgan_cli.config import AUTO_MODEL
from srgan_cli.errors import WeightsError
from srgan_cli.imaging.formats import FORMATS, PICTURE_SUFFIXES
from srgan_cli.networks import registry
from srgan_cli.serving.making import Result
from srgan_cli.serving.settings import Questions, ServeOptions
from srgan_cli.upscaling.choice import CLEAN, WORN

# Only srgan's own files and the API; pictures also from the page's memory.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# The page of `srgan compare` is self-contained. In a sandbox it cannot access the API.
VIEWER_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; "
    "frame-ancestors 'self'; sandbox allow-scripts"
)
_VIEWER_BYTES = 40_000_000
_PLACES, _PLACE_PX = 8, 256
# What the bundled families are for. Their files' descriptions name one scale, and options of the command.
_ABOUT = {
    "fast": "Like fidelity, but several times as fast.",
    "fidelity": "For science and evidence: invents nothing; closest to the original, but softer.",
    "photo": "For everyday photos: removes noise, JPEG blocks and slight blur.",
    "srgan": "For clean pictures: sharp, with invented but plausible texture.",
    "srgan-noise": "Like srgan, but each seed gives different detail.",
}


def main_page(models: Sequence[dict[str, object]], questions: Questions, options: ServeOptions) -> str:
    families: dict[str, list[dict[str, object]]] = {}
    for model in models:
        families.setdefault(str(model["family"]), []).append(model)
    offered = {
        name: {"scales": sorted(int(str(one["scale"])) for one in members),
               "description": _ABOUT.get(name, str(members[0]["description"])),
               "noise": any(one["has_noise"] for one in members)}
        for name, members in families.items()
    }  # fmt: skip
    own = None if options.model in {AUTO_MODEL, *offered} else options.model
    return render(
        "serving/page.html.jinja",
        families=offered,
        own=own,
        own_noise=own is not None and _has_noise(own),
        auto_noise=any(offered[name]["noise"] for name in (CLEAN, WORN) if name in offered),
        default=options.model,
        formats={name: known_format.title for name, known_format in FORMATS.items() if known_format.writable},
        accepted=",".join(sorted(PICTURE_SUFFIXES)),
        limits={"bytes": options.max_bytes, "pixels": options.max_pixels, "queue": options.queue},
        has_token=options.token is not None,
    )


def _has_noise(model: str) -> bool:
    """Whether the server's own model has noise. Its file may have been removed since the start."""
    try:
        path, _ = registry.resolve(registry.split_detail(model)[0])
    except WeightsError:
        return False
    return registry.draws_from_noise(path)


def login_page(*, wrong: bool) -> str:
    return render("serving/login.html.jinja", wrong=wrong)


@cache
def packaged(name: str) -> str:
    return resources.files("srgan_cli").joinpath("serving", name).read_text(encoding="utf-8")


def comparison(low: bytes, result: Result) -> str:
    """The page of `srgan compare` for a picture and its result. Raises `PictureError`."""
    scene = together([("before", read_shown(low)), ("after", read_shown(result.data))], enlarging="bicubic")
    places = most_different(scene, list(scene.views), _PLACES, _PLACE_PX)
    html, _ = build_page("before | after", [Exhibit(scene, tuple(places))], budget_bytes=_VIEWER_BYTES)
    return html
