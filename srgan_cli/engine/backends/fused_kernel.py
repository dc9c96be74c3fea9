"""The kernel of `fused`, in Triton's language. Only `fused` imports this module, since it needs Triton."""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def convolve(
    x,
    weight,
    bias,
    slope,
    residual,
    out,
    height,
    tiles_across,
    INPUTS: tl.constexpr,  # noqa: N803 - upper case is Triton's custom for constants
    OUTPUTS: tl.constexpr,  # noqa: N803
    PX: tl.constexpr,  # noqa: N803
    PRELU: tl.constexpr,  # noqa: N803
    RESIDUAL: tl.constexpr,  # noqa: N803
):
    """One program makes `PX` px of one row, all features.

    `x`, `residual`, `out`: descriptors of (N, H, W, C), read and written in blocks of (1, 1, PX, C). `weight`: one of
    (9·INPUTS, OUTPUTS). `bias`, `slope`: fp32, one number per output.
    """
    tile = tl.program_id(0)
    left = (tile % tiles_across) * PX
    row = tile // tiles_across
    picture, y = row // height, row % height
    total = tl.zeros((PX, OUTPUTS), tl.float32)
    for tap in range(9):
        # What lies outside the picture is read as 0, which is the convolution's padding.
        px = x.load([picture, y + tap // 3 - 1, left + tap % 3 - 1, 0]).reshape(PX, INPUTS)
        total = tl.dot(px, weight.load([tap * INPUTS, 0]), total)
    feature = tl.arange(0, OUTPUTS)
    total += tl.load(bias + feature)[None, :]
    if PRELU:
        total = tl.where(total > 0, total, total * tl.load(slope + feature)[None, :])
    if RESIDUAL:
        total += residual.load([picture, y, left, 0]).reshape(PX, OUTPUTS).to(tl.float32)
    out.store([picture, y, left, 0], total.to(out.dtype).reshape(1, 1, PX, OUTPUTS))
