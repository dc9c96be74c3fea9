"""Determines before the first step whether a batch fits into memory."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_cli.engine.backends import pytorch
from srgan_cli.errors import OutOfMemoryError
from srgan_cli.networks.generators import Generator
from srgan_cli.training import losses, processes
from srgan_cli.training.adaptation import wear_discriminator_terms, wearer_terms
from srgan_cli.training.processes import Processes
from srgan_cli.training.run import Run, noise_of
from srgan_cli.training.steps import Examples, Terms, discriminator_terms, fidelity_terms, generator_terms
from srgan_cli.training.wear_losses import BlockStatistics
from srgan_cli.training_adaptation_config import AdaptationSettings
from srgan_cli.training_config import AdversarialSettings, FidelitySettings, Phase

# Allowance beside the tensors kept for the backward pass: gradients, a convolution's workspace, the optimiser's state.
_BESIDES = 1.6
_FREE_FRACTION = 0.8  # fraction of the free memory
_MARGIN_BYTES = 256 << 20  # of an accelerator's memory, left for fragmentation and convolution workspaces
_MOMENTS = 2  # numbers per weight in AdamW's state


def fit(run: Run, group: Processes) -> tuple[dict[Phase, int], list[str]]:
    """The largest batch of each phase, of all processes together, that fits; and a sentence for each that had to be
    reduced.

    Raises `OutOfMemoryError` if not even one crop fits.
    """
    batches: dict[Phase, int] = {}
    notes = []
    for phase in run.config.phases:
        settings = run.config.of(phase)
        own = settings.batch // group.world  # this process's part
        with losses.alone():
            fits = _largest(run, phase, own)
        batches[phase] = processes.least(fits, group) * group.world
        if batches[phase] < settings.batch:
            crops = f"{settings.batch} crops of {settings.crop_px} px"  # at least two: one was taken to fit
            notes.append(f"{phase}: {crops} do not fit into memory; taking {batches[phase]}")
    return batches, notes


def _largest(run: Run, phase: Phase, batch: int) -> int:
    if run.device.type == "cpu":
        fits = min(batch, _fitting_crops(run, phase, batch))
    else:
        fits = batch
        while fits and not _runs(run, phase, fits):
            fits //= 2
    if not fits:
        crop_px = run.config.of(phase).crop_px
        raise OutOfMemoryError(f"not even one crop of {crop_px} px fits into the memory of {run.device}; try --crop")
    return fits


def _fitting_crops(run: Run, phase: Phase, batch: int) -> int:
    """How many crops fit into a CPU's free memory, from what a step with a few of them keeps."""
    tried = min(2, batch)  # batch norm may need more than one
    each_bytes = _kept_bytes(lambda: _try(run, phase, tried, cycled=0)) / tried * _BESIDES
    cycled = min(batch, _cycled(run, phase))  # as many for any batch
    cycles_bytes = _kept_bytes(lambda: _try_cycles(run, phase, cycled)) * _BESIDES if cycled else 0.0
    free = pytorch.free_memory_bytes(run.device) * _FREE_FRACTION / processes.on_this_machine()
    return max(0, int((free - cycles_bytes) / each_bytes))


def _kept_bytes(compute: Callable[[], object]) -> int:
    """Bytes of all tensors that autograd keeps for the backward pass, counting each storage once."""
    total_bytes, live = 0, Counter[int]()

    class Kept:
        """A tensor that is kept, so that no other storage can get its address."""

        def __init__(self, tensor: Tensor) -> None:
            nonlocal total_bytes
            storage = tensor.untyped_storage()
            self.tensor, self.address = tensor, storage.data_ptr()
            total_bytes += 0 if live[self.address] else storage.nbytes()
            live[self.address] += 1

        def __del__(self) -> None:
            live[self.address] -= 1

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        compute()
    return max(1, total_bytes)


def _runs(run: Run, phase: Phase, batch: int) -> bool:
    try:
        _with_ballast(run, lambda: _try(run, phase, batch))
    except Exception as err:
        if not pytorch.is_out_of_memory(err):
            raise
        fits = False
    else:
        fits = True
    pytorch.empty_cache(run.device)
    return fits


def _with_ballast(run: Run, compute: Callable[[], None]) -> None:
    """Run `compute` with as much memory allocated as optimisers will need that have not made a step yet."""
    networks = filter(None, (run.generator, run.discriminator))
    weights_bytes = sum(p.numel() * p.element_size() for network in networks for p in network.parameters())
    ballast = torch.empty(_MOMENTS * weights_bytes + _MARGIN_BYTES, dtype=torch.uint8, device=run.device)
    try:
        compute()
    finally:
        del ballast


def _try(run: Run, phase: Phase, batch: int, *, cycled: int | None = None) -> None:
    """One step on noise, with copies of the networks: nothing in the run changes. `cycled`: the crops of adaptation's
    cycles, if not as many as in a real step."""
    settings = run.config.of(phase)
    low, high = _noise(run, phase, batch)
    if run.teacher is not None and run.teacher.inline:
        context_px = run.config.teacher.context_px
        run.teacher(F.pad(low, (context_px,) * 4, mode="replicate"))
    if isinstance(settings, AdaptationSettings):
        _try_wear(run, low, high)
        return
    generator = copy.deepcopy(run.generator)
    worn = low[: _cycled(run, phase) if cycled is None else cycled]
    if isinstance(settings, FidelitySettings):
        weights = (1.0,) if run.teacher is None or run.config.teacher.weight in (0.0, 1.0) else (0.5, 0.5)
        targets = [(weight, high) for weight in weights]
        _backward(run, generator, fidelity_terms(generator, low, targets, settings, run.autocast), worn)
    else:
        _try_adversarial(run, generator, low, high, settings, worn)
    if run.adaptation is not None and run.adaptation.settings.every_steps:
        _try_wear(run, low, high, generator, worn)


def _try_adversarial(
    run: Run, generator: Generator, low: Tensor, high: Tensor, settings: AdversarialSettings, worn: Tensor
) -> None:
    discriminator = copy.deepcopy(run.discriminator)
    assert discriminator is not None
    discriminator.requires_grad_(False)
    terms, result = generator_terms(
        generator, run.ema, discriminator, run.perceptual, low, high, high, settings, 1.0, run.autocast,
        noise_of(run, len(low), 0),
    )  # fmt: skip
    _backward(run, generator, terms, worn)
    discriminator.requires_grad_(True)
    judged, _ = discriminator_terms(discriminator, result.detach(), high, settings, 0, run.autocast)
    judged.total.backward()  # type: ignore[no-untyped-call]


def _backward(run: Run, generator: Generator, terms: Terms, worn: Tensor) -> None:
    """Backwards through the generator's terms, and through the cycle of the crops `worn`."""
    if run.adaptation is not None and len(worn):
        run.adaptation.add_cycle(terms, generator, worn, 0)
    terms.total.backward()  # type: ignore[no-untyped-call]


def _try_wear(
    run: Run, low: Tensor, high: Tensor, generator: Generator | None = None, worn: Tensor | None = None
) -> None:
    """The same for the wearer's step, with the cycle of the crops `worn`; gradients remain in its networks until their
    first step."""
    assert run.adaptation is not None
    # noise must not enter the running statistics
    adaptation = dataclasses.replace(run.adaptation, statistics=BlockStatistics())
    terms, made = wearer_terms(adaptation, Examples(low, high, worn=low), np.random.default_rng(0))
    if generator is not None and worn is not None and len(worn):
        adaptation.add_wear_cycle(terms, generator, worn, 0)
    terms.total.backward()  # type: ignore[no-untyped-call]
    loss, _ = wear_discriminator_terms(adaptation, made.detach(), made.detach())
    loss.total.backward()  # type: ignore[no-untyped-call]


def _cycled(run: Run, phase: Phase) -> int:
    """How many crops of a batch take part in adaptation's cycles."""
    return 0 if run.adaptation is None or phase == "wear" else run.adaptation.cycled


def _try_cycles(run: Run, phase: Phase, cycled: int) -> None:
    """Only the cycles of a step, of `cycled` crops."""
    assert run.adaptation is not None
    low, _ = _noise(run, phase, cycled)
    for add in (run.adaptation.add_cycle, run.adaptation.add_wear_cycle):
        terms = Terms()
        add(terms, copy.deepcopy(run.generator), low, 0)
        terms.total.backward()  # type: ignore[no-untyped-call]


def _noise(run: Run, phase: Phase, batch: int) -> tuple[Tensor, Tensor]:
    """Low and high crops of noise."""
    high_px, scale = run.config.of(phase).crop_px, run.generator.scale
    low, high = (torch.rand(batch, 3, side_px, side_px, device=run.device) for side_px in (high_px // scale, high_px))
    return low.contiguous(memory_format=torch.channels_last), high.contiguous(memory_format=torch.channels_last)
