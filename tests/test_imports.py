"""Tests for the map of docs/ARCHITECTURE.md: imports only go down, and nothing heavy is loaded before it is needed."""

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
    "engine",
    "networks",
    "documents",
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
    "wording",
    "threads",
)
FACES = ("__init__", "__main__")
CONSOLES = ("cli.console", "cli.plan_console", "cli.training_console")  # what a person sees
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
def known_modules() -> frozenset[str]:
    return frozenset(modules())


@cache
def source_of(module: str) -> str:
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")


@cache
def syntax_of(module: str) -> ast.Module:
    """Parsed once, since that takes longer than all that is asked of it."""
    return ast.parse(source_of(module))


@cache
def nodes_of(module: str) -> list[ast.AST]:
    """All of its syntax tree, the root first."""
    return list(ast.walk(syntax_of(module)))


@cache
def imports_of(module: str) -> list[Import]:
    return list(_walk(syntax_of(module), module, lazy=False, typing=False))


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
        elif isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            yield from _walk(child, module, lazy=lazy, typing=True)
        else:
            if isinstance(child, ast.expr):
                continue  # which holds no statement
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _walk(child, module, lazy=lazy or function, typing=typing)


def room_of(module: str) -> str:
    return module.split(".")[0]


@cache
def at_once(module: str) -> list[Import]:
    """The modules imported when a module is imported."""
    return [one for one in imports_of(module) if not one.lazy and not one.typing]


@cache
def module_in_package(name: str) -> str | None:
    """`srgan_cli.sizes.Size` -> `sizes`; None for what is not ours."""
    parts = name.split(".")
    if parts[0] != "srgan_cli":
        return None
    known = known_modules()
    for length in range(len(parts), 1, -1):
        candidate = ".".join(parts[1:length])
        if candidate in known:
            return candidate
        if f"{candidate}.__init__" in known:
            return f"{candidate}.__init__"
    return "__init__"


@cache
def loaded_by(module: str) -> frozenset[str]:
    """All modules of this package that importing `module` loads, itself included."""
    seen, left = {module}, [module]
    while left:
        named = (module_in_package(one.name) for one in at_once(left.pop()))
        new = {ours for ours in named if ours is not None} - seen
        seen |= new
        left += new
    return frozenset(seen)


def test_every_module_has_its_room() -> None:
    assert {room_of(module) for module in modules()} <= {*ROOMS, *FACES}


def test_no_room_is_much_larger_than_a_sixth() -> None:
    lines: dict[str, int] = {}
    for module in modules():
        lines[room_of(module)] = lines.get(room_of(module), 0) + source_of(module).count("\n")
    whole = sum(lines.values())
    assert not {room: count / whole for room, count in lines.items() if count > 0.18 * whole}


def test_imports_only_go_down() -> None:
    wrong = [fault for module in modules() if room_of(module) not in FACES for fault in _upwards(module)]
    assert not wrong, "\n".join(wrong)


def _upwards(module: str) -> Iterator[str]:
    own = ROOMS.index(room_of(module))
    for one in imports_of(module):
        ours = module_in_package(one.name)
        if ours in FACES and one.name != "srgan_cli.__version__":
            yield f"{module}:{one.line} imports the package's face"
        if ours is not None and ours not in FACES and ROOMS.index(room_of(ours)) < own:
            yield f"{module}:{one.line} imports {one.name}, which lies above it"


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


def test_pictures_need_no_torch_at_all() -> None:
    rooms = [one for module in modules() if room_of(module) in ("imaging", "documents") for one in imports_of(module)]
    assert not [one for one in rooms if one.name.split(".")[0] in ("torch", "torchvision")]


LIGHT = (
    [m for m in modules() if room_of(m) in ("cli", *FACES)]
    + [m for m in modules() if room_of(m) in ("imaging", "documents")]
    + [
        "networks.registry",
        "upscaling.inputs",
        "upscaling.names",
        "upscaling.planning",
        "upscaling.observer",
        "upscaling.session",
        "upscaling.ledger",
        "engine.tiles",
        "upscaling.crew.lead",
    ]
    + ["training_config", "training_presets", "training.observer"]
)


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    for module in LIGHT:
        for ours in loaded_by(module):
            for one in at_once(ours):
                assert one.name.split(".")[0] not in HEAVY, f"{module} loads {ours}, which imports {one.name}"


def test_only_the_consoles_know_rich() -> None:
    for module in (m for m in modules() if room_of(m) == "cli" and m not in CONSOLES):
        for ours in loaded_by(module):
            assert ours not in CONSOLES, f"{module} loads {ours}"
            assert not [one for one in at_once(ours) if one.name.split(".")[0] == "rich"]


def test_the_library_neither_prints_nor_exits() -> None:
    for module in (m for m in modules() if room_of(m) != "cli" and m != "__main__"):
        for node in nodes_of(module):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                last = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                called = ast.unparse(node.func) if last in ("print", "exit", "quit", "basicConfig") else ""
                assert called not in ("print", "sys.exit", "exit", "quit", "logging.basicConfig"), f"{module}: {called}"
        assert not [one for one in imports_of(module) if one.name.split(".")[0] in ("click", "rich")], module


_PUBLISHING = re.compile(
    r"\bos\.(rename|replace|link|fsync|fdatasync)\b|\.(rename|replace)\([\w.]+\)|\bfcntl\b|\bmsvcrt\b|FileLock|platformdirs"
)


def test_only_files_publishes_syncs_and_locks() -> None:
    assert [module for module in modules() if _PUBLISHING.search(source_of(module))] == ["files"]


LIMITS = {"srgan_cli": 450, "benchmarks": 450, "tests": 450}  # lines


def test_no_module_is_too_long() -> None:
    repository = Path(__file__).parent.parent
    lines = {
        path: (path.read_text(encoding="utf-8").count("\n"), limit)
        for folder, limit in LIMITS.items()
        for path in (repository / folder).rglob("*.py")
    }
    assert not {str(path.relative_to(repository)): count for path, (count, limit) in lines.items() if count > limit}


def test_the_packages_own_import_is_light() -> None:
    code = (
        "import sys, srgan_cli; heavy = [m for m in ('torch', 'numpy', 'PIL', 'click') if m in sys.modules]; "
        "assert not heavy, heavy; from srgan_cli import UpscaleOptions, Size, SrganError; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_no_two_classes_have_one_name() -> None:
    """A word has one meaning: who searches for a class finds the one."""
    places: dict[str, list[str]] = {}
    for module in modules():
        for node in nodes_of(module):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{module}:{node.lineno}")
    assert not {name: where for name, where in places.items() if len(where) > 1}
