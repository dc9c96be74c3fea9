"""Models that draw their detail from noise: one variant for each requested seed and strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from srgan_cli.errors import SettingsError
from srgan_cli.upscaling.session import NO_NOISE

if TYPE_CHECKING:
    from srgan_cli.engine.upscaler import Upscaler


@dataclass(frozen=True)
class Variant:
    """A model as it is scored or shown. `again` uses another seed; None if no noise is used. `facts` describe the
    noise, for programs."""

    upscaler: Upscaler
    again: Upscaler | None = None
    facts: Mapping[str, float] = field(default_factory=dict)


def variants(
    upscalers: Mapping[str, Upscaler], seeds: Sequence[int] = (0,), variations: Sequence[float] = (), *, asked: str = ""
) -> dict[str, Variant]:
    """Models with noise once for each of `seeds` and of `variations` (empty: full strength), with matching names; the
    others once. `asked`: the option that needs noise, if it was given.

    Raises `SettingsError` if that option was given and no model has noise, and `DeviceError` if a device does not
    support it.
    """
    if asked and not any(one.has_noise for one in upscalers.values()):
        raise SettingsError(NO_NOISE.format(asked, " and ".join(upscalers)))
    found: dict[str, Variant] = {}
    for name, upscaler in upscalers.items():
        found |= _of_one(name, upscaler, seeds, variations) if upscaler.has_noise else {name: Variant(upscaler)}
    return found


def _of_one(name: str, upscaler: Upscaler, seeds: Sequence[int], variations: Sequence[float]) -> dict[str, Variant]:
    found = {}
    for variation in dict.fromkeys(variations or (1.0,)):
        for seed in seeds if variation else seeds[:1]:  # without noise all seeds give the same result
            mark = f", variation {variation:g}" if variations else ""
            mark += f", seed {seed}" if variation and tuple(seeds) != (0,) else ""
            again = upscaler.varied(seed + 1, variation) if variation else None
            facts = {"seed": seed, "variation": variation}
            found[name + mark] = Variant(upscaler.varied(seed, variation), again, facts)
    return found
