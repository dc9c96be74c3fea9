"""What runs a tile: which device, in which precision, with how much memory, and why.

Nothing here knows of pictures or networks.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from srgan_cli.config import EngineOptions
from srgan_cli.errors import DeviceError

# What a first guess may take of the memory that is free: the rest is for everything that a guess forgets.
MEMORY_SHARE = 0.6
# What a tile may take on a CPU at most. For the networks we ship a window of 1024 px takes 1.1 GiB in bf16 and 1.6 in
# fp32; its halo costs 7 %, and more would gain little.
CPU_TILE_BYTES = 1640 << 20
# Side of the largest window, halo included.
MOST_WINDOW_PX = 1024
ACCELERATOR_BATCH = 8

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc, malloc.h


@dataclass(frozen=True)
class Compute:
    """Where and in what precision a network runs. `reasons` are the sentences `srgan doctor` prints."""

    device: torch.device
    dtype: torch.dtype
    reasons: tuple[str, ...]
    chosen_precision: bool  # the person named the precision: obey, do not second-guess

    @property
    def precision(self) -> str:
        return {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[self.dtype]


def choose(options: EngineOptions, *, half_ok: bool = True, bf16_ok: bool = True) -> Compute:
    """Resolve `auto` device and precision. `half_ok`, `bf16_ok`: what the model itself bears.

    Raises `DeviceError` when a device is asked for that is not there.
    """
    device, why_device = _choose_device(options.device)
    dtype, why_dtype = _choose_dtype(options, device, half_ok, bf16_ok)
    if device.type == "cpu":
        keep_large_blocks()
    return Compute(device, dtype, (why_device, why_dtype), options.precision != "auto")


def _choose_device(name: str) -> tuple[torch.device, str]:
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        if cuda:
            return torch.device(
                "cuda", 0
            ), f"device cuda:0, {torch.cuda.get_device_name(0)}: the fastest that was found"
        if mps:
            return torch.device("mps"), "device mps: Apple's GPU was found"
        return torch.device("cpu"), "device cpu: no usable GPU was found"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if cuda else 0
        if (device.index or 0) >= count:
            have = f"this machine has {count} CUDA device{'s' * (count != 1)}" if count else "no CUDA device was found"
            raise DeviceError(f"--device {name} was asked for, but {have}; try --device auto, or see `srgan doctor`")
        device = torch.device("cuda", device.index or 0)
    if device.type == "mps" and not mps:
        raise DeviceError("--device mps was asked for, but PyTorch finds no Apple GPU here; try --device auto")
    return device, f"device {device}: asked for"


def _choose_dtype(
    options: EngineOptions, device: torch.device, half_ok: bool, bf16_ok: bool
) -> tuple[torch.dtype, str]:
    if options.precision != "auto":
        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[options.precision]
        if (dtype == torch.float16 and not half_ok) or (dtype == torch.bfloat16 and not bf16_ok):
            return torch.float32, f"precision fp32: this model cannot run in {options.precision}"
        return dtype, f"precision {options.precision}: asked for"
    if device.type == "cuda" and half_ok:
        return torch.float16, "precision fp16: tensor cores; checked against fp32 before use and tile by tile"
    if device.type == "cpu" and bf16_ok and cpu_has_fast_bf16():
        return torch.bfloat16, "precision bf16: this CPU multiplies bf16 in hardware; checked against fp32 before use"
    if device.type == "cpu":
        return torch.float32, "precision fp32: this CPU (or model) has no fast half precision"
    return torch.float32, f"precision fp32: the safe choice on {device.type}"


def cpu_has_fast_bf16() -> bool:
    """Whether the CPU has AVX512-BF16 or AMX, where bf16 convolutions measured 2 to 2.5 times as fast as fp32."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if torch.cpu._is_amx_tile_supported():
        return True
    flag = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if flag is not None:
        return bool(flag())
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False


_blocks_kept: bool | None = None


def keep_large_blocks() -> bool:
    """Tell glibc to keep large freed blocks instead of returning each to the kernel. True where that worked.

    Every activation of a tile is a block of tens of megabytes. By default glibc maps each anew and the kernel zeroes
    it page by page, which costs up to half of the time of a convolution. The process then holds on to at most what
    it once needed at a time. Set SRGAN_KEEP_BLOCKS=0 to leave the allocator alone.
    """
    global _blocks_kept
    if _blocks_kept is None:
        _blocks_kept = _set_malloc_thresholds()
    return _blocks_kept


def release_free_blocks(above_bytes: int) -> None:
    """Give back to the kernel what glibc holds free, if it is more than `above_bytes`.

    Blocks of another size fit badly into the gaps that the last ones left, and the heap would grow to twice what is in
    use. Faulting the pages in again costs a large tile a few per cent, so this is for between bands.
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


@contextlib.contextmanager
def inference(device: torch.device) -> Iterator[None]:
    """No gradients; and on CUDA, fp32 means fp32.

    By default cuDNN rounds the factors of fp32 convolutions to TF32, ten bits of mantissa: neither could the canary
    be trusted then, nor would tiles agree to float rounding.
    """
    with torch.inference_mode():
        if device.type != "cuda":
            yield
            return
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False):
            yield


def free_memory_bytes(device: torch.device) -> int:
    """Bytes that could be allocated on `device` now, what PyTorch's cache holds unused included."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return _free_host_memory()


def _free_host_memory() -> int:
    """Available memory, or what a container's limit leaves, whichever is less."""
    candidates = [8 << 30]  # where nothing can be learned
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                candidates = [int(line.split()[1]) * 1024]
    candidates += [free for group in _memory_groups() if (free := _free_in_group(*group)) is not None]
    return max(0, min(candidates))


def _memory_groups() -> list[tuple[Path, str, str, str]]:
    """Folders of the control groups this process is in, with the names of limit, usage and droppable pages (v2, v1)."""
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
    """What the group's limit leaves; file pages that the kernel would drop do not count as used."""
    with contextlib.suppress(OSError, ValueError):
        limit = int((folder / limit_name).read_text(encoding="ascii"))
        used = int((folder / usage_name).read_text(encoding="ascii"))
        for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == droppable_name:
                used -= int(value)
        return limit - used
    return None  # no such group, or no limit ("max")


# What allocators without an exception of their own say: PyTorch's on the CPU, oneDNN's, Metal's, those of cuDNN and
# cuBLAS, and CUDA's for pinned host memory.
_NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "std::bad_alloc",
    "MPS backend out of memory",
    "Invalid buffer size",
    "STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
)


def is_out_of_memory(err: BaseException) -> bool:
    """Whether an error means that a smaller tile may succeed."""
    if isinstance(err, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(err, RuntimeError) and any(words in str(err) for words in _NO_MEMORY)


def empty_cache(device: torch.device) -> None:
    """Give what PyTorch holds unused back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
