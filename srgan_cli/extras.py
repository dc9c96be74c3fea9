"""How to install the packages of an extra, in a way that matches how srgan itself was installed.

Never suggest the bare project name: on the public registry it may be another project.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

_PROJECT = "srgan-cli"
_CHECKOUT = "pip install '.[{}]' in the checkout"


def how_to_install(extra: str) -> str:
    """A command such as `pip install '.[heic]'`, for an extra in pyproject.toml."""
    try:
        project = importlib.metadata.distribution(_PROJECT)
        origin = json.loads(project.read_text("direct_url.json") or "{}")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return _CHECKOUT.format(extra)
    url = str(origin.get("url", ""))
    if "dir_info" in origin:
        folder = url2pathname(unquote(urlsplit(url).path))
        return f"pip install '{folder}[{extra}]'"
    if url:
        vcs = origin.get("vcs_info", {})
        prefix = f"{vcs['vcs']}+" if "vcs" in vcs else ""
        revision = f"@{vcs['commit_id']}" if "commit_id" in vcs else ""
        return f"pip install '{_PROJECT}[{extra}] @ {prefix}{url}{revision}'"
    packages = _packages(project.requires or [], extra)
    return f"pip install {' '.join(packages)}" if packages else _CHECKOUT.format(extra)


def _packages(requirements: list[str], extra: str) -> list[str]:
    """The packages of an extra, as pip accepts them: `'pillow-heif>=0.18'`."""
    marker = re.compile(rf"""extra\s*==\s*["']{re.escape(extra)}["']""")
    return [f"'{one.split(';')[0].strip()}'" for one in requirements if marker.search(one)]
