"""The map of docs/ARCHITECTURE.md, held: imports only go down, and nothing heavy is loaded before it is needed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import srgan_cli

PACKAGE = Path(srgan_cli.__file__).parent

# From the top down: a module imports from its own room and from rooms below. The package's own face only points to
# others, lazily.
ROOMS = (
    "cli",
    "serving",
    "training",
    "runlog",
    "comparison",
    "evaluation",
    "dataset",
    "upscaling",
    "networks",
    "imaging",
    "stores",
    "handles",
    "files",
    "training_presets",
    "training_config",
    "training_adaptation_config",
    "training_data_config",
    "config",
    "sizes",
    "stored",
    "extras",
    "checking",
    "errors",
    "threads",
)
FACES = ("__init__", "__main__")
CONSOLES = ("cli.console", "cli.training_console")  # what a person sees
HEAVY = ("torch", "torchvision", "cv2", "pyvips", "spandrel", "safetensors", "PIL")


class Import(NamedTuple):
    module: str  # who imports, with dots, without `srgan_cli.`
    name: str  # what, in full
    line: int
    lazy: bool  # inside a function
    typing: bool  # under `if TYPE_CHECKING`


@cache
def modules() -> list[str]:
    return sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))


@cache
def imports_of(module: str) -> list[Import]:
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    return list(_walk(ast.parse(path.read_text(encoding="utf-8")), module, lazy=False, typing=False))


def _walk(node: ast.AST, module: str, *, lazy: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(module, alias.name, child.lineno, lazy, typing)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module}: imports are written in full"
            assert child.module is not None
            for alias in child.names:
                yield Import(module, f"{child.module}.{alias.name}", child.lineno, lazy, typing)
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            yield from _walk(child, module, lazy=lazy, typing=True)
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(child, module, lazy=lazy or function, typing=typing)


def room_of(module: str) -> str:
    return module.split(".")[0]


def at_once(module: str) -> list[Import]:
    """What importing a module itself imports."""
    return [one for one in imports_of(module) if not one.lazy and not one.typing]


@cache
def module_in_package(name: str) -> str | None:
    """`srgan_cli.sizes.Size` -> `sizes`; None for what is not ours."""
    parts = name.split(".")
    if parts[0] != "srgan_cli":
        return None
    known = set(modules())
    for length in range(len(parts), 1, -1):
        candidate = ".".join(parts[1:length])
        if candidate in known:
            return candidate
        if f"{candidate}.__init__" in known:
            return f"{candidate}.__init__"
    return "__init__"


def loaded_by(module: str, seen: set[str] | None = None) -> set[str]:
    """All modules of ours that importing `module` loads, itself included."""
    seen = set() if seen is None else seen
    if module not in seen:
        seen.add(module)
        for one in at_once(module):
            if (ours := module_in_package(one.name)) is not None:
                loaded_by(ours, seen)
    return seen


def test_every_module_has_its_room() -> None:
    assert {room_of(module) for module in modules()} <= {*ROOMS, *FACES}


@pytest.mark.parametrize("module", [module for module in modules() if room_of(module) not in FACES])
def test_imports_only_go_down(module: str) -> None:
    own = ROOMS.index(room_of(module))
    for one in imports_of(module):
        ours = module_in_package(one.name)
        if ours is None:
            continue
        if ours in FACES:
            assert one.name == "srgan_cli.__version__", f"{module}:{one.line} imports the package's face"
            continue
        assert ROOMS.index(room_of(ours)) >= own, f"{module}:{one.line} imports {one.name}, which lies above it"


def test_modules_do_not_import_each_other_in_circles() -> None:
    for module in modules():
        for one in at_once(module):
            ours = module_in_package(one.name)
            if ours is not None and ours != module and ours not in FACES:
                assert module not in loaded_by(ours), f"{module}:{one.line}"


@pytest.mark.parametrize(
    "module",
    ["config", "errors", "imaging.formats", "training_config", "training_presets", "training.observer"],
)
def test_settings_and_errors_need_the_standard_library_only(module: str) -> None:
    for one in at_once(module):
        root = one.name.split(".")[0]
        # tomli is the standard library's tomllib, for Python 3.10
        known = root in sys.stdlib_module_names or root in ("srgan_cli", "tomli")
        assert known, f"{module}:{one.line} imports {one.name}"


@pytest.mark.parametrize("module", [m for m in modules() if room_of(m) == "imaging"])
def test_pictures_need_no_torch_at_all(module: str) -> None:
    assert not [one for one in imports_of(module) if one.name.split(".")[0] in ("torch", "torchvision")]


@pytest.mark.parametrize(
    "module",
    [m for m in modules() if room_of(m) in ("cli", *FACES)]
    + [m for m in modules() if room_of(m) == "imaging"]
    + [
        "networks.registry",
        "upscaling.inputs",
        "upscaling.names",
        "upscaling.planning",
        "upscaling.observer",
        "upscaling.session",
        "upscaling.ledger",
        "upscaling.tiles",
    ]
    + ["training_config", "training_presets", "training.observer"],
)
def test_nothing_heavy_is_imported_before_it_is_used(module: str) -> None:
    for ours in loaded_by(module):
        for one in at_once(ours):
            assert one.name.split(".")[0] not in HEAVY, f"{module} loads {ours}, which imports {one.name}"


@pytest.mark.parametrize("module", [m for m in modules() if room_of(m) == "cli" and m not in CONSOLES])
def test_only_the_consoles_know_rich(module: str) -> None:
    for ours in loaded_by(module):
        assert ours not in CONSOLES
        assert not [one for one in at_once(ours) if one.name.split(".")[0] == "rich"]


@pytest.mark.parametrize("module", [m for m in modules() if room_of(m) != "cli" and m != "__main__"])
def test_the_library_neither_prints_nor_exits(module: str) -> None:
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in ("print", "sys.exit", "exit", "quit", "logging.basicConfig")
    assert not [one for one in imports_of(module) if one.name.split(".")[0] in ("click", "rich")]


_PUBLISHING = re.compile(
    r"\bos\.(rename|replace|link|fsync|fdatasync)\b|\.(rename|replace)\([\w.]+\)|\bfcntl\b|\bmsvcrt\b|FileLock|platformdirs"
)


@pytest.mark.parametrize("module", modules())
def test_only_files_publishes_syncs_and_locks(module: str) -> None:
    found = _PUBLISHING.findall(PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8"))
    assert bool(found) == (module == "files"), found


def test_the_packages_own_import_is_light() -> None:
    code = (
        "import sys, srgan_cli; heavy = [m for m in ('torch', 'numpy', 'PIL', 'click') if m in sys.modules]; "
        "assert not heavy, heavy; from srgan_cli import UpscaleOptions, Size, SrganError; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_picture_is_upscaled_without_torchs_compiler(tmp_path: Path) -> None:
    """Importing it takes longer than torch does; it came in with the first initialisation on `meta`."""
    code = """
import sys
from pathlib import Path
import numpy as np
from srgan_cli import EngineOptions, Upscaler, load_model
from srgan_cli.networks.generators import build
from srgan_cli.networks.registry import Card
from srgan_cli.networks.weights import save_weights

path = Path(sys.argv[1])
save_weights(path, build("srresnet", {"features": 4, "blocks": 1, "batch_norm": True}), Card("x", "x", "", "MIT"))
low = np.zeros((8, 8, 3), np.uint8)
for source in ("fast-x4", "srgan-x4", path):
    Upscaler(load_model(source), EngineOptions(device="cpu")).upscale(low)
print([name for name in ("torch._dynamo", "torch.onnx", "torch._inductor", "sympy") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "paper.safetensors")],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in srgan_cli.__all__:
        assert getattr(srgan_cli, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = srgan_cli.no_such_name
