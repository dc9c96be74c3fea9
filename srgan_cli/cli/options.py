"""Options that several commands share, each declared once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from click.shell_completion import CompletionItem

from srgan_cli.cli.command import under
from srgan_cli.cli.habits import address
from srgan_cli.config import DEFAULT_MODEL
from srgan_cli.errors import SettingsError
from srgan_cli.training_data_config import DegradationKind

_F = TypeVar("_F", bound=Callable[..., Any])
_Names = TypeVar("_Names", str | None, tuple[str, ...])
_Decorator = Callable[[_F], _F]

DEVICES = "auto|cpu|cuda[:N]|mps|xpu|vulkan[:N]|openvino[:gpu|npu]"
_PRECISIONS = ("auto", "fp32", "fp16", "bf16")


def tile(_ctx: click.Context, _param: click.Parameter, value: str) -> int | None:
    if value == "auto":
        return None
    if not (value.isascii() and value.isdecimal()):
        raise click.BadParameter(f"{value!r} is neither auto nor a number of px")
    return int(value)


def path(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Path | None:
    """For a file or folder: rejects the empty name that an unset variable leaves, and addresses."""
    if value is None:
        return None
    _check_name(value)
    return Path(value)


def names(_ctx: click.Context, _param: click.Parameter, value: _Names) -> _Names:
    """The same for one or several files or folders that stay text."""
    for one in (value,) if isinstance(value, str) else value or ():
        _check_name(one)
    return value


def _check_name(name: str) -> None:
    if name == "":
        raise click.BadParameter("it is empty (an unset variable?); give . for the folder you are in")
    if (why := address(name)) is not None and not os.path.lexists(name):
        raise click.BadParameter(f"{name} is an address: {why}")


def refuse_addresses(names: tuple[str, ...]) -> None:
    """Raise `SettingsError` if an input is a URL, naming the first one."""
    for name in names:
        if (why := address(name)) is not None and not os.path.lexists(name):
            raise SettingsError(f"{name} is an address: {why}")


class ModelName(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4 on, not at run time before
    """The name of a bundled or own model or family, a file, or a run folder. Completed from the names and from
    files."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        name = str(value)
        if not name:
            self.fail("it is empty (an unset variable?)", param, ctx)
        if address(name) is not None and not os.path.lexists(name):
            self.fail(f"{name} is an address: add the model with `srgan models add {name}` first", param, ctx)
        return name

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from srgan_cli.networks import library, registry

        names = [(model.family, model.name) for model in registry.entries()]
        names += [(model.family, model.name) for model in library.own_models()]
        known = dict.fromkeys(["auto", *(family for family, _ in names), *(name for _, name in names)])
        return [
            CompletionItem(incomplete, type="file"),  # first: in bash it replaces what comes before it
            *(CompletionItem(name) for name in known if name.startswith(incomplete)),
        ]


class Completed(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4 on, not at run time before
    """Text, with completion from a list of words."""

    name = "text"

    def __init__(self, *words: str) -> None:
        self._words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in self._words if word.startswith(incomplete)]


class Decimal(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4 on, not at run time before
    """A number, also with a decimal comma."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return decimal(value)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)


def decimal(value: Any) -> float:
    """`0.5`, or `0,5`. Raises `ValueError`."""
    text = str(value)
    return float(text.replace(",", ".") if "." not in text else text)


class Factor(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4 on, not at run time before
    """A number, also as `2x` or `x2`, as other programs and the names of models have it, or with a decimal comma."""

    name = "factor"

    def __init__(self, number: type[int | float]) -> None:
        self._number = number

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        text = str(value).strip().lower().replace("×", "x").replace(",", ".")
        try:
            return self._number(text[1:] if text.startswith("x") else text.removesuffix("x"))
        except ValueError:
            self.fail(f"{value!r} is not a {'whole ' * (self._number is int)}number", param, ctx)


_compute, _options = under("Compute"), under("Options")


def model_option(
    *names: str, default: Any = DEFAULT_MODEL, multiple: bool = False, heading: str = "Model", text: str = ""
) -> _Decorator[Any]:
    return under(heading)(
        "-m", "--model", *names, type=ModelName(), default=default, multiple=multiple, show_default=True,
        metavar="NAME|FILE|RUN",
        help=text or "Bundled model (see `srgan models list`), weights file, or training run.",
    )  # fmt: skip


def device_option(*, default: str | None = "auto", several: str = "") -> _Decorator[Any]:
    """`default` None: the preset's. `several`: the help text on several devices."""
    return _compute(
        "--device", type=Completed("auto", "cpu", "cuda", "mps", "xpu", "vulkan", "openvino"), default=default,
        show_default=True, metavar=DEVICES,
        help=f"Where to compute (see `srgan doctor`).{several}" + " [default: auto]" * (default is None),
    )  # fmt: skip


def precision_option(*, default: str | None = "auto") -> _Decorator[Any]:
    return _compute(
        "--precision", type=click.Choice(_PRECISIONS, case_sensitive=False), default=default, show_default=True,
        help="auto uses half precision where it is fast, and checks it." + " [default: auto]" * (default is None),
    )  # fmt: skip


def tile_option() -> _Decorator[Any]:
    return _compute(
        "--tile", "tile_px", type=Completed("auto"), default="auto", show_default=True, callback=tile,
        metavar="auto|PX", help="Side of a tile. Changes memory and speed, never the picture.",
    )  # fmt: skip


def scale_option(
    text: str, *, heading: str = "Options", number: type[int | float] = int, **more: Any
) -> _Decorator[Any]:
    """The enlargement."""
    return under(heading)("-s", "--scale", type=Factor(number), metavar="N", help=text, **more)


def seed_option(text: str, *, heading: str) -> _Decorator[Any]:
    """The seed of the noise from which models draw their detail."""
    return under(heading)("--seed", type=int, default=0, show_default=True, metavar="N", help=text)


def variation_option(text: str, *names: str, heading: str, **more: Any) -> _Decorator[Any]:
    """The strength of that noise."""
    return under(heading)("--variation", *names, type=Decimal(), metavar="0-1", help=text, **more)


def ensemble_option(text: str, *, heading: str) -> _Decorator[Any]:
    """The self-ensemble, see `engine.ensemble`."""
    return under(heading)("--ensemble", is_flag=True, help=text)


def output_option(text: str, *, metavar: str, heading: str = "Output", **more: Any) -> _Decorator[Any]:
    return under(heading)("-o", "--output", metavar=metavar, help=text, **{"callback": path, **more})


def overwrite_option(text: str, *, heading: str = "Options", **more: Any) -> _Decorator[Any]:
    return under(heading)("--overwrite", is_flag=True, help=text, **more)


def degradation_option(text: str) -> _Decorator[Any]:
    """How to downscale and degrade pictures without low counterparts; see `degradation_called`."""
    kinds = get_args(DegradationKind)
    return under("Pictures")("--degradation", type=Completed(*kinds), metavar="|".join((*kinds, "RUN")), help=text)


def high_dir_option(name: str, heading: str, text: str, **more: Any) -> _Decorator[Any]:
    """The folder of the originals; `name` is that of the parameter."""
    return under(heading)("--hr-dir", "--high-dir", name, **{"metavar": "DIR", "callback": path, **more}, help=text)


def low_dir_option(name: str, heading: str, text: str, **more: Any) -> _Decorator[Any]:
    """The folder of their low counterparts."""
    return under(heading)("--lr-dir", "--low-dir", name, **{"metavar": "DIR", "callback": path, **more}, help=text)


def vgg_weights_option(heading: str, default: str) -> _Decorator[Any]:
    return under(heading)(
        "--vgg-weights", callback=path, metavar="FILE", help=f"VGG19's weights. [default: torchvision's, {default}]"
    )


def verbose_option(text: str) -> _Decorator[Any]:
    return _options("-v", "--verbose", is_flag=True, help=text)


def json_option(text: str = "Print JSON, for programs.") -> _Decorator[Any]:
    return _options("--json", "as_json", is_flag=True, help=text)


def quiet_option(text: str = "Print only errors.") -> _Decorator[Any]:
    return _options("-q", "--quiet", is_flag=True, help=text)


def no_config_option() -> _Decorator[Any]:
    """Read by `Command` before all other options."""
    return _options(
        "--no-config", is_flag=True, is_eager=True, expose_value=False,
        help="Ignore the config file and SRGAN_* (see `srgan doctor`).",
    )  # fmt: skip
