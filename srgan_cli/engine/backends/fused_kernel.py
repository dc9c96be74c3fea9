"""The kernels of `fused`, in Triton's language. Only `fused` imports this module, since it needs Triton."""

# mypy: ignore-errors
# ruff: noqa: N803 - constants are in upper case, as is Triton's custom

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def convolve_blocks(
    x,
    weight,
    bias,
    slope,
    residual,
    out,
    height,
    tiles_across,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PX: tl.constexpr,
    PRELU: tl.constexpr,
    RESIDUAL: tl.constexpr,
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
    total = _activated(total, bias, slope, OUTPUTS, PRELU)
    if RESIDUAL:
        total += residual.load([picture, y, left, 0]).reshape(PX, OUTPUTS).to(tl.float32)
    out.store([picture, y, left, 0], total.to(out.dtype).reshape(1, 1, PX, OUTPUTS))


@triton.jit
def convolve_px(
    x,
    weight,
    bias,
    slope,
    residual,
    out,
    height,
    width,
    tiles_across,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PX: tl.constexpr,
    PRELU: tl.constexpr,
    RESIDUAL: tl.constexpr,
):
    """As `convolve_blocks`, with pointers to the first numbers instead of descriptors."""
    tile = tl.program_id(0)
    column = (tile % tiles_across) * PX + tl.arange(0, PX)
    row = tile // tiles_across  # of all pictures' rows
    y = row % height
    first = row.to(tl.int64) * width  # px before the row; in a batch of large tiles, values need 64 bits to be counted
    channel, feature = tl.arange(0, INPUTS), tl.arange(0, OUTPUTS)
    total = tl.zeros((PX, OUTPUTS), tl.float32)
    for tap in range(9):
        down = tap // 3 - 1
        across = column + tap % 3 - 1
        inside = (across >= 0) & (across < width) & (y + down >= 0) & (y + down < height)
        start = (first + down * width) * INPUTS
        px = tl.load(x + start + across[:, None] * INPUTS + channel[None, :], mask=inside[:, None], other=0.0)
        total = tl.dot(px, tl.load(weight + (tap * INPUTS + channel)[:, None] * OUTPUTS + feature[None, :]), total)
    total = _activated(total, bias, slope, OUTPUTS, PRELU)
    at = first * OUTPUTS + column[:, None] * OUTPUTS + feature[None, :]
    exists = (column < width)[:, None]
    if RESIDUAL:
        total += tl.load(residual + at, mask=exists, other=0.0).to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=exists)


@triton.jit
def _activated(total, bias, slope, OUTPUTS: tl.constexpr, PRELU: tl.constexpr):
    feature = tl.arange(0, OUTPUTS)
    total += tl.load(bias + feature)[None, :]
    if PRELU:
        total = tl.where(total > 0, total, total * tl.load(slope + feature)[None, :])
    return total
