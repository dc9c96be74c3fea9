"""The file that a learned degradation refers to, its scale, and whether it is for grey pictures. Does not import
torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from srgan_cli import stored
from srgan_cli.dataset.folders import folder_of
from srgan_cli.errors import SettingsError, WeightsError, shown
from srgan_cli.networks.registry import WeightsHeader, read_weights_header

WEAR_NAME = "wear.safetensors"
FORMAT, VERSION = "srgan_wear", "1"  # key in the file's metadata
GREY = "grey"  # there too; missing in older files, which count as learned in colour


def wear_path(name: str) -> Path:
    """The file that `--degradation RUN` refers to: a run folder's, or the file itself. Raises `SettingsError`."""
    given = folder_of(name)
    path = given / WEAR_NAME if given.is_dir() else given
    if not path.is_file():
        why = f"it holds no {WEAR_NAME}" if given.is_dir() else "there is no such folder or file"
        raise SettingsError(
            f"the degradation {shown(name)} is neither bicubic nor photo nor a run that has learned wear ({why}); "
            "such a run is made with --unpaired-lr-dir"
        )
    return path


@dataclass(frozen=True)
class WearFacts:
    """The facts in a wearer's file header. `grey`: learned from grey pictures."""

    scale: int
    grey: bool


def facts_in(header: WeightsHeader, path: Path) -> WearFacts:
    """Raises `WeightsError` for a file with other contents, or a damaged one."""
    if header.metadata.get(FORMAT) != VERSION:
        raise WeightsError(
            f"{path} holds no learned wear that this srgan can read; such files come from --unpaired-lr-dir"
        )
    try:
        scale = stored.whole(stored.json_of(header.metadata["config"]).get("scale", 4))
        grey = stored.json_of(header.metadata.get(GREY, "false"))
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise WeightsError(f"{path} is damaged: its settings are not valid ({err})") from err
    if not isinstance(grey, bool):
        raise WeightsError(f"{path} is damaged: its settings are not valid (grey is true or false, not {grey!r})")
    return WearFacts(scale, grey)


def check_wear(name: str, scale: int) -> WearFacts:
    """The facts of the wear that `name` refers to. Raises `SettingsError` if it was learned for another scale, and
    `WeightsError` for a damaged file."""
    path = wear_path(name)
    facts = facts_in(read_weights_header(path), path)
    refuse_other_scale(name, facts.scale, scale)
    return facts


def refuse_other_scale(name: str, learned: int, scale: int) -> None:
    """Raises `SettingsError` unless the two are equal."""
    if learned != scale:
        raise SettingsError(
            f"the wear of {shown(name)} was learned for low pictures {learned} times smaller than the sharp ones, and "
            f"here they are {scale} times smaller; give --scale {learned}, or learn it again"
        )
