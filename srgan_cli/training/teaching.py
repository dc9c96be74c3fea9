"""A stronger network as a teacher: loading it, and its results for low pictures."""

from __future__ import annotations

import time
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_cli.config import EngineOptions
from srgan_cli.dataset.degradation import bicubic_down
from srgan_cli.dataset.low_pictures import to_tensor
from srgan_cli.dataset.pictures import Bytes
from srgan_cli.engine.backends import choice
from srgan_cli.engine.backends.protocol import Backend
from srgan_cli.engine.chain import Chain
from srgan_cli.errors import WeightsError
from srgan_cli.networks.weights import Model, load_model
from srgan_cli.training.preflight import check_teacher_scale
from srgan_cli.training_config import TrainConfig

_TOGETHER = 16  # crops at a time: a teacher needs many times the memory of its student


class Teacher:
    """Enlarges like `srgan upscale`, by the student's `scale`: results of a teacher with a larger scale are downscaled.
    In half precision if the device and the network support it; results that are not finite are recomputed in fp32.

    `inline`: its results are computed for each batch instead of ahead of time. `setup_s`: duration of checking the
    precision.
    """

    def __init__(self, model: Model, scale: int, backend: Backend, *, inline: bool) -> None:
        began_s = time.monotonic()
        self.model, self.scale, self.device, self.inline = model, scale, backend.device, inline
        self._ratio = model.scale // scale
        self._exact: Chain | None = None
        self._chain = Chain([model], backend)
        with backend.inference():
            referee = None if backend.chosen_precision else backend.referee([model])
            trusted = referee is None or self._chain.canary(referee).is_small
        if not trusted:
            self._chain = self._exact = self._chain.exact()
        self.setup_s = time.monotonic() - began_s

    @property
    def precision(self) -> str:
        return self._chain.backend.precision

    def __call__(self, low: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 3, H·scale, W·scale) in [0, 1], fp32, on its device, without gradients.

        Raises `WeightsError` if the network's results are not finite even in fp32.
        """
        with self._chain.backend.inference():
            parts = [self._enlarged(part) for part in torch.split(low.to(self.device), _TOGETHER)]
        return torch.cat(parts).contiguous(memory_format=torch.channels_last)

    def of_pixels(self, low: Bytes) -> Bytes:
        """(H, W, 3) -> (H·scale, W·scale, 3), rounded."""
        high = self(to_tensor(low))[0]
        pixels: Bytes = (high * 255.0 + 0.5).to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
        return pixels

    def _enlarged(self, low: Tensor) -> Tensor:
        low = low.contiguous(memory_format=torch.channels_last)
        subpixels = self._chain.subpixels(low)
        if not bool(subpixels.isfinite().all()):
            self._exact = self._exact or self._chain.exact()
            subpixels = self._exact.subpixels(low)
            if not bool(subpixels.isfinite().all()):
                raise WeightsError(
                    f"the teacher, {self.model.name}, gives numbers that are not finite (NaN or infinity) for one "
                    "of your pictures; it is damaged or unsuitable, and cannot be used as a teacher"
                )
        high = F.pixel_shuffle(subpixels, self._chain.shuffle).clamp(0.0, 1.0)
        return high if self._ratio == 1 else bicubic_down(high, self._ratio).clamp(0.0, 1.0)


def load_teacher(config: TrainConfig, device: torch.device) -> Teacher | None:
    """The teacher given in the settings; None if there is none.

    Raises `WeightsError` for a model that does not exist, is damaged, or needs spandrel if that is not installed, and
    `SettingsError` for one whose scale does not fit the student's.
    """
    settings, scale = config.teacher, config.generator.scale
    if settings.model is None:
        return None
    model = load_model(settings.model, scale)
    check_teacher_scale(config, model.scale)
    inline = settings.results == "inline" or (settings.results == "auto" and device.type != "cpu")
    return Teacher(model, scale, choice.choose(engine_options(config, device), [model]), inline=inline)


def engine_options(config: TrainConfig, device: torch.device) -> EngineOptions:
    """The engine options for networks that are not trained."""
    # Only fp32 applies to a teacher too: half precision is checked for each network separately.
    precision: Literal["fp32", "auto"] = "fp32" if config.compute.precision == "fp32" else "auto"
    return EngineOptions(device=str(device), precision=precision)
