"""Self-contained pages: rendered from a template, with pictures embedded as `data:` addresses.

Templates, style sheets and scripts are in the package beside the modules that use them. All values passed to a template
are sanitised by `errors.shown` and escaped; only `Markup` is inserted unchanged.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from srgan_cli import __version__
from srgan_cli.errors import shown
from srgan_cli.imaging.image import Pixels

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup


@dataclass(frozen=True)
class Codec:
    """A way to encode pictures: (H, W, 3) uint8. `quality` 0: lossless."""

    format: str
    quality: int = 0

    @property
    def mime(self) -> str:
        return f"image/{self.format.lower()}"

    def encode(self, pixels: Pixels) -> bytes:
        file = io.BytesIO()
        # Not `optimize` for JPEG: Pillow's buffer is then too small for noisy pictures.
        options: dict[str, Any] = {"quality": self.quality, "subsampling": 0} if self.quality else {}
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, self.format, **options)
        return file.getvalue()

    def address(self, data: bytes) -> Markup:
        from markupsafe import Markup

        return Markup(f"data:{self.mime};base64,{base64.b64encode(data).decode('ascii')}")


# Lossless while a page stays small enough, else with as little loss as possible.
CODECS = (Codec("PNG"), Codec("JPEG", 95), Codec("JPEG", 88), Codec("JPEG", 75))


def render(template: str, **values: object) -> Markup:
    """The text of a template of this package (`comparison/viewer.html.jinja`), filled in.

    A page extends `comparison/page.html.jinja`, whose content policy forbids loading anything.
    """
    from markupsafe import Markup

    return Markup(_templates().get_template(template).render(version=__version__, **values))


@cache
def _templates() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_packaged),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_as_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["packaged"] = _verbatim
    environment.filters["as_data"] = _as_data
    return environment


def _packaged(name: str) -> str:
    return resources.files("srgan_cli").joinpath(*name.split("/")).read_text(encoding="utf-8")


def _verbatim(name: str) -> Markup:
    """A style sheet or a script of this package, which must be neither escaped nor parsed as a template."""
    from markupsafe import Markup

    return Markup(_packaged(name))


def _as_shown(value: object) -> object:
    return shown(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _as_data(value: object) -> Markup:
    """JSON for a script element, which only `<` can end; it is escaped, as JSON allows."""
    from markupsafe import Markup

    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))
