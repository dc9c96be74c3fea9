"""The host's memory: how much is free, and how glibc manages large blocks."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

from srgan_cli.engine.backends.protocol import MEMORY_FRACTION

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc, malloc.h

# The maximum memory of a tile on a CPU, so that a run stays within 1.5 GiB above the interpreter in every precision;
# and the maximum fraction of a small machine's memory, which other programs need too. For the bundled networks a window
# of 1024 px takes 1.1 GiB in bf16, and one of about 770 px as much in fp32.
_TILE_BYTES = 1100 << 20
_TILE_DIVISOR = 6

# Ratio of the heap's size to the memory in use. A tensor does not fit into the gap left by one of the same size:
# PyTorch requests memory aligned to 64 bytes, glibc searches for that much more, and the remainders have been allocated
# by then. For `srgan-x4` 1.8 to 1.9 in fp32 and 1.9 in bf16.
HEAP_GROWTH = 1.9

_blocks_kept: bool | None = None


def keep_large_blocks() -> bool:
    """Tell glibc to keep large freed blocks instead of returning each to the kernel. Returns whether that worked.

    Every activation of a tile is a block of tens of megabytes. By default glibc maps each one again and the kernel
    zeroes it page by page, which costs up to half of a convolution's time. With this setting the process keeps its peak
    memory. Set SRGAN_KEEP_BLOCKS=0 to disable it.
    """
    global _blocks_kept
    if _blocks_kept is None:
        _blocks_kept = _set_malloc_thresholds()
    return _blocks_kept


def release_free_blocks(above_bytes: int) -> None:
    """Return glibc's free memory to the kernel if it is more than `above_bytes`.

    Blocks of another size do not fit well into the gaps of earlier ones, and the heap would grow to twice what is in
    use. Faulting the pages in again costs a large tile a few per cent, so this is done only between bands.
    """
    if not _blocks_kept:
        return
    libc = ctypes.CDLL(None)
    if above_bytes and hasattr(libc, "mallinfo2"):  # glibc 2.33
        libc.mallinfo2.restype = _MallInfo
        if libc.mallinfo2().fordblks <= above_bytes:
            return
    libc.malloc_trim(0)


class _MallInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`. `fordblks`: bytes in free blocks."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def _set_malloc_thresholds() -> bool:
    if not sys.platform.startswith("linux") or os.environ.get("SRGAN_KEEP_BLOCKS") == "0":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1))


def free_host_bytes() -> int:
    """Available memory, or what a container's limit leaves, if that is less."""
    import psutil

    candidates = [int(psutil.virtual_memory().available)]
    candidates += [free for group in _memory_groups() if (free := _free_in_group(*group)) is not None]
    return max(0, min(candidates))


def total_host_bytes() -> int:
    """The machine's memory, or a container's limit, if that is less."""
    import psutil

    candidates = [int(psutil.virtual_memory().total)]
    for folder, limit_name, _, _ in _memory_groups():
        with contextlib.suppress(OSError, ValueError):  # no such group, or no limit ("max")
            candidates.append(int((folder / limit_name).read_text(encoding="ascii")))
    return min(candidates)


def host_tile_bytes() -> float:
    """The maximum memory of a tile on the CPU."""
    return min(free_host_bytes() * MEMORY_FRACTION, _TILE_BYTES, total_host_bytes() / _TILE_DIVISOR)


def _memory_groups() -> list[tuple[Path, str, str, str]]:
    """Folders of this process's control groups, with the names of limit, usage and reclaimable pages (v2, v1)."""
    groups = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                root = Path("/sys/fs/cgroup/memory")
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            else:
                continue
            # In a container the path is that of the host, and the root is the container's own group.
            groups += [(folder, *names) for folder in (root, root / path.lstrip("/"))]
    return groups


def _free_in_group(folder: Path, limit_name: str, usage_name: str, droppable_name: str) -> int | None:
    """What the group's limit leaves; file pages that the kernel can reclaim do not count as used."""
    with contextlib.suppress(OSError, ValueError):
        limit = int((folder / limit_name).read_text(encoding="ascii"))
        used = int((folder / usage_name).read_text(encoding="ascii"))
        for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == droppable_name:
                used -= int(value)
        return limit - used
    return None  # no such group, or no limit ("max")
