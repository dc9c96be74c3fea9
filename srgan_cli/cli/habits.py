"""Options that users know from other programs, and srgan's equivalents."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePath

from srgan_cli.imaging.formats import PICTURE_SUFFIXES

# From waifu2x, Real-ESRGAN (both as ncnn programs and as scripts) and Upscayl, ImageMagick, vipsthumbnail, and
# plausible guesses.
_INPUT = "pictures and folders are given without an option: srgan upscale in.jpg -o out.png"
_GPU = "choose the device with --device: auto, cpu, cuda, cuda:1, mps, xpu, vulkan or openvino"
_TILE = "the option is --tile here, in px; auto is nearly always right"
_MODEL = "the option is --model (-m) here; `srgan models list` lists the models"
_PARALLEL = "reading, computing and writing run in parallel by themselves; there is no thread option"
_SEAMLESS = "tiles join without seams by themselves; there is no option for their overlap"
_NAMES: dict[str, str] = {
    **dict.fromkeys(("-i", "--input", "--inputs"), _INPUT),
    **dict.fromkeys(("-t", "--tile-size", "--tile_size", "--tilesize"), _TILE),
    **dict.fromkeys(("-g", "--gpu", "--gpu-id", "--gpu_id", "--cuda", "--cpu"), _GPU),
    **dict.fromkeys(("-f", "--ext", "--output-format"), "the option is --format here, for example --format png"),
    **dict.fromkeys(("-x", "--tta", "--tta-mode"), "test-time augmentation (TTA) is --ensemble here"),
    "-V": "the version is shown by srgan --version",
    **dict.fromkeys(("-j", "--threads", "--jobs", "--workers"), _PARALLEL),
    **dict.fromkeys(("--model-name", "--model_name", "--model-path", "--model_path"), _MODEL),
    **dict.fromkeys(("--outscale", "--upscale", "--factor"), "the option is --scale (-s) here"),
    **dict.fromkeys(("--noise", "--noise-level", "--noise_level", "--denoise", "--denoise-strength",
                     "--denoise_strength", "-d"), "noise and compression are removed by --model photo"),
    "--suffix": "names are built with --name, for example --name '{stem}_large{ext}'",
    **dict.fromkeys(("--size", "--resize"), "give --scale, --width, --height, --long-side, --fit WxH or --print PAPER"),
    **dict.fromkeys(("--half", "--fp16"), "the option is --precision fp16 here"),
    "--fp32": "the option is --precision fp32 here",
    **dict.fromkeys(("-y", "--yes", "--force"), "the option is --overwrite here"),
    "--output-dir": "the option is --output (-o) here",
    **dict.fromkeys(("-w", "--resize-width"), "the option is --width here, in px"),
    **dict.fromkeys(("-c", "--compress", "--compression"), "the options are --quality and --png-level here"),
    **dict.fromkeys(("-z", "--model-scale", "--scale-ratio", "--scale_ratio"), "the option is --scale (-s) here"),
    **dict.fromkeys(("--tile_pad", "--tile-pad", "--pre_pad", "--pre-pad"), _SEAMLESS),
    **dict.fromkeys(("--face_enhance", "--face-enhance"), "srgan has no model for faces"),
    **dict.fromkeys(("-R", "--recurse"), "the option is --recursive (-r) here"),
    "--resume": "the same command resumes the run in --out by itself",
    "--list-models": "`srgan models list` lists the models",
    **dict.fromkeys(("--keep-metadata", "--copy-metadata", "--copy-exif"), "metadata is kept; --strip drops it"),
    **dict.fromkeys(("--no-metadata", "--strip-metadata", "--no-exif"), "the option is --strip here"),
}  # fmt: skip


def answer(option: str) -> str | None:
    """srgan's equivalent of an unknown option; None if there is none."""
    return _NAMES.get(option)


def picture_as_command(name: str) -> str | None:
    """A suggestion for `srgan in.jpg`; None if `name` does not look like a picture or a folder."""
    path = PurePath(name)
    if path.suffix.lower() in PICTURE_SUFFIXES or "/" in name or "\\" in name or name == ".":
        return f"say what to do with it: srgan upscale {shlex.quote(name)}"
    return None


def address(name: str) -> str | None:
    """Why an address is not a valid input; None for all other names."""
    match = re.match(r"([a-z][a-z0-9+.-]+)://", name, re.IGNORECASE)
    if match is None:
        return None
    if match[1].lower() == "file":
        return "give the path itself, without file://"
    return "only the inputs and -o of srgan upscale may be one"
