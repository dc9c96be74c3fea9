"""A folder of tiny bundled models, for tests of choosing and interpolating them."""

from __future__ import annotations

from pathlib import Path

import torch

from srgan_cli.networks.generators import build
from srgan_cli.networks.registry import Card, manifest
from srgan_cli.networks.weights import save_weights

FAMILIES = {"fidelity": False, "srgan": True, "photo": True}


def bundle(folder: Path, scales: tuple[int, ...] = (2, 4)) -> Path:
    """`fidelity`, `srgan` and `photo` for each scale, with random weights that are not each other's."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (family, adversarial) in enumerate(FAMILIES.items()):
        for scale in scales:
            torch.manual_seed(100 * number + scale)
            generator = build("compact", {"scale": scale, "features": 4, "blocks": 1})
            with torch.no_grad():
                for parameter in generator.parameters():
                    parameter.add_(0.02 * torch.randn_like(parameter))
            card = Card(f"{family}-x{scale}", family, f"tiny {family}", adversarial=adversarial)
            save_weights(folder / f"{family}-x{scale}.safetensors", generator, card)
    (folder / "manifest.toml").write_text(manifest(folder), encoding="utf-8")
    return folder
