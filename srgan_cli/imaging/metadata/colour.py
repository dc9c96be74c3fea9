"""Colour spaces that a file describes without an ICC profile, and their conversion to a profile.

PNG specification, third edition, 4.3 and 11.3.2 (cICP before iCCP before sRGB before gAMA and cHRM); ITU-T H.273 for
the numbers of cICP, which are those of `nclx` in AVIF and HEIC; ICC.1:2001-04 for the profile.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from srgan_cli.imaging.standards import srgb_to_linear

Chromaticities = tuple[float, float, float, float, float, float, float, float]  # x, y of white, red, green and blue
Curve = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]  # from stored values to linear light, both 0 to 1

_D65 = (0.3127, 0.3290)
_BT709: Chromaticities = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES: dict[int, Chromaticities] = {
    1: _BT709,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_HDR = {16: "PQ", 18: "HLG"}
_SRGB_GAMMA = 45_455
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])


def hdr_of(chunks: Mapping[str, bytes]) -> str | None:
    """PQ or HLG if the picture is coded so, else None."""
    cicp = chunks.get("cICP", b"")
    return _HDR.get(cicp[1]) if len(cicp) == 4 else None


def profile_of(chunks: Mapping[str, bytes], *, grey: bool) -> bytes | None:
    """An ICC profile for PNG's `chunks` (cICP, sRGB, gAMA, cHRM); None if they mean sRGB or HDR, or are absent."""
    cicp = chunks.get("cICP", b"")
    if len(cicp) == 4:
        primaries, transfer = _PRIMARIES.get(cicp[0]), _transfer(cicp[1])
        if primaries is None or transfer is None or (cicp[0] == 1 and cicp[1] == 13):
            return None
        return _profile(primaries, transfer, f"H.273 {cicp[0]}/{cicp[1]}", grey=grey)
    if "sRGB" in chunks:
        return None
    gamma, primaries = _gamma(chunks), _chromaticities(chunks)
    is_srgb = primaries is None or all(abs(a - b) < 0.001 for a, b in zip(primaries, _BT709, strict=True))
    if (gamma in (None, _SRGB_GAMMA) and (is_srgb or grey)) or (gamma is None and primaries is None):
        return None
    power = None if gamma is None or gamma == _SRGB_GAMMA else 100_000 / gamma
    title = "sRGB curve" if power is None else f"gamma {power:.4g}"
    curve = srgb_to_linear if power is None else _power(power)
    return _profile(primaries or _BT709, curve, title, grey=grey)


def _gamma(chunks: Mapping[str, bytes]) -> int | None:
    data = chunks.get("gAMA", b"")
    value = int.from_bytes(data, "big") if len(data) == 4 else 0
    return value if 5_000 <= value <= 500_000 else None


def _chromaticities(chunks: Mapping[str, bytes]) -> Chromaticities | None:
    data = chunks.get("cHRM", b"")
    if len(data) != 32:
        return None
    a, b, c, d, e, f, g, h = (value / 100_000 for value in struct.unpack(">8I", data))
    sound = (
        all(0 < value < 1 for value in (a, b, c, d, e, f, g, h)) and abs((c - g) * (f - h) - (e - g) * (d - h)) > 1e-4
    )
    return (a, b, c, d, e, f, g, h) if sound else None


def _power(power: float) -> Curve:
    return lambda x: x**power


def _bt709(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(x < 0.081, x / 4.5, ((x + 0.099) / 1.099) ** (1 / 0.45))


def _transfer(number: int) -> Curve | None:
    known: dict[int, Curve] = {
        1: _bt709, 6: _bt709, 14: _bt709, 15: _bt709, 13: srgb_to_linear,
        4: lambda x: x**2.2, 5: lambda x: x**2.8, 8: lambda x: x,
    }  # fmt: skip
    return known.get(number)


def _profile(primaries: Chromaticities, curve: Curve, title: str, *, grey: bool) -> bytes:
    levels = np.round(curve(np.linspace(0, 1, 1024)) * 65535).astype(">u2")
    tone = b"curv\0\0\0\0" + struct.pack(">I", len(levels)) + levels.tobytes()
    name = f"srgan: {title}".encode()
    text = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + bytes(1 + 4 + 4 + 2 + 1 + 67)
    blocks = {b"desc": text, b"cprt": b"text\0\0\0\0No copyright\0", b"wtpt": _xyz(_D50)}
    if grey:
        blocks[b"kTRC"] = tone
    else:
        for letter, column in zip(b"rgb", _to_d50(primaries).T, strict=True):
            blocks[bytes([letter]) + b"XYZ"] = _xyz(column)
            blocks[bytes([letter]) + b"TRC"] = tone
    return _packed(blocks, b"GRAY" if grey else b"RGB ")


def _to_d50(c: Chromaticities) -> npt.NDArray[np.float64]:
    """From linear RGB to XYZ under D50, (3, 3), by Bradford's chromatic adaptation."""
    columns = np.array([[c[i] / c[i + 1], 1, (1 - c[i] - c[i + 1]) / c[i + 1]] for i in (2, 4, 6)]).T
    white = np.array([c[0] / c[1], 1, (1 - c[0] - c[1]) / c[1]])
    matrix = columns * np.linalg.solve(columns, white)
    scale = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    result: npt.NDArray[np.float64] = np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD @ matrix
    return result


def _xyz(values: npt.NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))


def _packed(blocks: dict[bytes, bytes], space: bytes) -> bytes:
    at = 128 + 4 + 12 * len(blocks)
    table, body, places = struct.pack(">I", len(blocks)), b"", {}
    for name, data in blocks.items():
        if data not in places:  # the three channels share one curve
            places[data] = at + len(body)
            body += data + b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", places[data], len(data))
    size = at + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", *(round(value * 65536) for value in _D50))
    return head.ljust(128, b"\0") + table + body
