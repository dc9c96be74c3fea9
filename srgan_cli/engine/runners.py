"""Runs one band at a time on a GPU; and which runner of `bands` a chain needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from srgan_cli.engine import bands, pixels
from srgan_cli.engine.chain import Chain
from srgan_cli.engine.tiles import Span
from srgan_cli.imaging.image import Pixels
from srgan_cli.networks.noise import Noise


def runner(
    chain: Chain,
    noise: Noise | None = None,
    origin: tuple[int, int] = (0, 0),
    on_part: bands.OnPart = bands.unreported,
) -> bands.Runner:
    """The runner for the chain and its device. `noise` is for networks that draw from it; the picture's first row and
    column are at `origin` in the whole picture. `on_part` is called while a band is computed, with the number of
    low-resolution px of it that are done; not by runners that are asynchronous."""
    if chain.blend_px:
        return bands.BlendingRunner(chain, noise, origin, on_part)
    return (DeviceRunner if chain.device.type == "cuda" else bands.HostRunner)(chain, noise, origin, on_part)


@dataclass(frozen=True)
class _Download:
    """A finished piece on its way to the host, and its position in the band."""

    down: slice
    across: slice
    host: Tensor
    arrived: Callable[[], None]  # waits until `host` may be read

    def write(self, target: Pixels) -> None:
        self.arrived()
        # PyTorch copies with several threads, NumPy with one, which would take as long as a fast GPU needs for a piece.
        pixels.bits(torch.from_numpy(target[self.down, self.across])).copy_(pixels.bits(self.host))


class DeviceRunner:
    """A GPU: the band's rows are uploaded once, and tiles run in batches. Finished tiles are downloaded, and written
    into the picture, while the next ones run."""

    uniform = True
    asynchronous = True
    band_bytes: int | None = bands.BAND_BYTES

    def __init__(
        self, chain: Chain, noise: Noise | None, origin: tuple[int, int], on_part: bands.OnPart = bands.unreported
    ) -> None:
        self._tiles = bands.Tiles(chain, noise, origin, on_part)
        self._scale, self._device = chain.scale, chain.device
        self._cuda = chain.device.type == "cuda"
        self._copies = torch.cuda.Stream(chain.device) if self._cuda else None  # type: ignore[no-untyped-call]

    def start(self, low: Pixels, rows: Span, columns: Sequence[Span], out: Pixels, batch_px: int) -> bands.Pending:
        low, target = bands.without_constant_alpha(low, bands.rows_of(out, rows, self._scale))
        band, dtype = self._upload(low), bands.TORCH_DTYPES[out.dtype]
        pieces, finite = self._run(self._tiles.chain, band, rows, columns, dtype, batch_px)

        def finish() -> int:
            for piece in pieces:
                piece.write(target)
            bad = [column for column, ok in zip(columns, finite(), strict=True) if not ok]
            if bad:
                again, all_finite = self._run(self._tiles.exact(), band, rows, bad, dtype, batch_px)
                if not all(all_finite()):
                    raise bands.not_finite(self._tiles.chain)
                for piece in again:
                    piece.write(target)
            return len(bad)

        return bands.Pending(rows, len(columns), finish, rows.stop)

    def _run(
        self, chain: Chain, band: Tensor, rows: Span, columns: Sequence[Span], dtype: torch.dtype, batch_px: int
    ) -> tuple[list[_Download], Callable[[], list[bool]]]:
        """Run all tiles of a band. Returns their pieces, and a function that waits for all and says which tiles were
        finite."""
        pieces, flags = [], []
        per_batch = max(1, batch_px // (band.shape[0] * columns[0].window))
        for first in range(0, len(columns), per_batch):
            batch = columns[first : first + per_batch]
            # Moved as bits: PyTorch has few GPU kernels for uint16.
            windows = torch.stack([pixels.bits(band)[:, c.begin : c.end] for c in batch]).view(band.dtype)
            output = self._tiles.run(chain, windows, rows, batch)
            for down, across, piece in self._tiles.pieces(output, rows, batch, dtype, rows.core):
                pieces.append(_Download(down, across, *self._download(piece)))
            flags.append(self._download(output.finite))

        def finite() -> list[bool]:
            for _, arrived in flags:
                arrived()
            return [ok for host, _ in flags for ok in host.tolist()]

        return pieces, finite

    def _upload(self, low: Pixels) -> Tensor:
        rows = bands.tensor(low)
        return rows.pin_memory().to(self._device, non_blocking=True) if self._cuda else rows.to(self._device)

    def _download(self, result: Tensor) -> tuple[Tensor, Callable[[], None]]:
        """A result in host memory, and a function to call before it is read.

        It is copied on a separate stream: on the computing one it would wait for the tiles that follow.
        """
        if self._copies is None:
            return result.cpu(), lambda: None
        result = pixels.bits(result).contiguous().view(result.dtype)  # else the copy itself would compute
        self._copies.wait_stream(torch.cuda.current_stream(self._device))
        host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
        with torch.cuda.stream(self._copies):
            host.copy_(result, non_blocking=True)
            result.record_stream(self._copies)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(self._copies)
        return host, arrived.synchronize
