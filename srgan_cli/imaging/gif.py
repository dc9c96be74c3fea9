"""The position of a GIF's first frame on its canvas (GIF89a specification, sections 18 to 23), and whether the frame is
complete."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

from srgan_cli.imaging.sources import Source, vips_module

_MAX_BLOCKS = 100_000


def first_frame(source: Source) -> tuple[int, int, int, int] | None:
    """Left, top, width and height in px; None if no frame is found."""
    at = _first_frame_at(source)
    return None if at is None else struct.unpack("<4H", source.read_at(at + 1, 8))


@dataclass(frozen=True)
class CodedPixels:
    """The coded pixels of the first frame: the offset where their complete blocks end, and whether the terminating
    block follows."""

    end: int
    is_ended: bool


def first_blocks(source: Source) -> CodedPixels | None:
    """The blocks of the first frame; None if no frame is found."""
    begin = _first_frame_at(source)
    if begin is None:
        return None
    data = source.read_all()
    at = begin + 11 + _table_bytes(data[begin + 9] if len(data) > begin + 9 else 0)
    while at < len(data) and data[at] and at + data[at] < len(data):
        at += 1 + data[at]
    return CodedPixels(at, data[at : at + 1] == b"\0")


def _first_frame_at(source: Source) -> int | None:
    head = source.read_at(0, 13)
    if len(head) < 13:
        return None
    at = 13 + _table_bytes(head[10])
    for _ in range(_MAX_BLOCKS):
        block = source.read_at(at, 9)
        if len(block) == 9 and block[0] == 0x2C:
            return at
        if block[:1] != b"!":
            return None
        at += 2
        while (size := source.read_at(at, 1)) not in (b"", b"\0"):
            at += 1 + size[0]
        at += 1
    return None


def _table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def around_clear(image: Any, frame: tuple[int, int, int, int] | None) -> Any:
    """The libvips image of a canvas, transparent outside its opaque first frame."""
    if frame is None or image.bands in (2, 4):  # it already has transparency, which libvips has used
        return image
    left, top, width, height = frame
    if left == 0 and top == 0 and width >= image.width and height >= image.height:
        return image
    frame_px = (vips_module().Image.black(max(width, 1), max(height, 1)) + 255).cast("uchar")
    alpha = frame_px.embed(left, top, image.width, image.height)
    return image.bandjoin(alpha).copy(interpretation=image.interpretation)


def lost(source: Source) -> str:
    """What is missing from the first frame, which libvips leaves transparent. Pillow decodes the frame once more and
    reports it; libvips decides about any other fault."""
    from PIL.GifImagePlugin import GifImageFile

    blocks = first_blocks(source)
    if blocks is None:
        return ""
    try:
        GifImageFile(
            io.BytesIO(source.read_at(0, blocks.end) + b"\0;")
        ).load()  # Pillow would continue with the next frame
    except OSError as err:
        return "some of its pixels are missing" if "truncated" in str(err) else ""
    except Exception:  # noqa: BLE001 - a second opinion only
        return ""
    return ""
