"""`srgan train --unpaired-lr-dir … --preview sheet.png`: sharp and worn pictures side by side.

Includes the wear learned by an earlier run in the same folder, if there is one.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from PIL import Image

from srgan_cli.dataset.wear_files import load_wear
from srgan_cli.dataset.wear_header import WEAR_NAME
from srgan_cli.networks.registry import RUN_MODEL
from srgan_cli.networks.weights import load_generator
from srgan_cli.runlog.preview import check_target, evenly_chosen, save_sheet
from srgan_cli.training import sources
from srgan_cli.training.observer import SilentTraining
from srgan_cli.training.processes import Processes
from srgan_cli.training.run import Run, begin, with_sizes_of_init
from srgan_cli.training.validation import held_out
from srgan_cli.training.wear_validation import WearValidation
from srgan_cli.training_config import TrainConfig

_ROWS = 6


def preview_wear(config: TrainConfig, where: Path, target: Path) -> bool:
    """Draw the sheet into the file `target`. Returns whether it shows wear learned by a run in the folder `where`.

    Raises what scanning and reading the pictures raise, `WeightsError` for damaged files of that run, `SettingsError`
    if `target` is another kind of file, and `TrainingError` if it cannot be written.
    """
    check_target(target)
    run = begin(with_sizes_of_init(config), Processes())
    found = sources.scanned(run, SilentTraining())
    shown = dataclasses.replace(found, val=tuple(evenly_chosen(found.train, _ROWS)))
    assert run.adaptation is not None
    learned = _take_learned(run, where)
    wear = WearValidation(run, run.adaptation, shown, held_out(run.config, shown, run.generator.scale))
    sheet = wear.sheet(run, _ROWS, learned=learned)
    assert sheet is not None, "scanning has made sure of pictures of both kinds"
    save_sheet(Image.fromarray(sheet), target)
    return learned


def _take_learned(run: Run, where: Path) -> bool:
    """Load the networks of an earlier run, as far as they have been trained."""
    wear, model = where / WEAR_NAME, where / RUN_MODEL
    if run.adaptation is None or not wear.is_file():
        return False
    learned = load_wear(wear)
    run.adaptation = dataclasses.replace(
        run.adaptation, ema=learned.network.to(run.device), signs=learned.signs, grey=learned.grey
    )
    if model.is_file():
        run.ema = load_generator(model).to(run.device).eval().requires_grad_(False)
    return True
