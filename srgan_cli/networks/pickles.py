"""Reads files by `torch.save` (`.pth`, `.pt`, `.ckpt`, checkpoints) with limits. No code in a file is ever run.

A pickle is a program for a small machine. torch's own reader (`weights_only`) restricts it to tensors and plain
containers, but limits neither its run time nor its nesting, and the result may claim more numbers than the file holds.
So every pickle in a file is first interpreted here without creating objects: each value is tracked by its number of
values and its depth, and a storage by its length, which must match its record. The result is checked once more.
"""

from __future__ import annotations

import collections
import io
import pickletools
import warnings
import zipfile
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from srgan_cli.errors import WeightsError, shown

_MAX_STEPS = 500_000  # operations in one pickle, about 2 s; a tensor takes 30
_MAX_DEPTH = 64
_MAX_VALUES = 1_000_000  # counted by traversing everything; what occurs twice counts twice
_MAX_RECORDS = 100_000
_MAX_VIEWS = 16  # the maximum total size of all tensors (through sharing) as a multiple of the file's
_ZIP = b"PK\x03\x04"
# The start of torch's older files: the pickle of a number.
_OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_OLD_PICKLES = 5  # that number, a version, facts about the machine, the content, the storages' keys


class _Value(NamedTuple):
    """The interpreter's knowledge of a value. `content`: texts and numbers, tuples of these, names of classes."""

    size: int
    depth: int
    content: Any = None


def read_tensors(origin: Path | bytes, name: str) -> Any:
    """The file's contents: tensors (dense, on the CPU) in plain containers. `name` is for messages.

    Raises `WeightsError` if it cannot be opened, is damaged or truncated, holds anything but tensors and plain values
    (such as code), is nested deeper than 64 levels, or claims more data than the file has.
    """
    try:
        if isinstance(origin, Path) and origin.exists() and not origin.is_file():
            raise _RefusedError("it is a folder, a device or a pipe")
        with io.BytesIO(origin) if isinstance(origin, bytes) else origin.open("rb") as file:
            _follow(file)
            file.seek(0)
            found = torch.load(file, map_location="cpu", weights_only=True)
            size_bytes = file.seek(0, io.SEEK_END)
        _look_through(found, size_bytes)
    except _RefusedError as err:
        raise WeightsError(f"{name} cannot be read as weights: {err}") from err
    except OSError as err:
        raise WeightsError(f"{name} cannot be read: {err.strerror or err}") from err
    except Exception as err:  # a damaged pickle can raise any exception
        raise WeightsError(
            f"{name} cannot be read as weights: it is damaged, or it contains code, which srgan never runs "
            f"({_first_line(err)})"
        ) from err
    return found


class _RefusedError(Exception):
    """Why a file is not read, as the end of a sentence."""


def _first_line(err: Exception) -> str:
    said = str(err).strip().splitlines()
    return shown(said[0].split(". ")[0][:120]) if said else type(err).__name__


# ---------------------------------------------------------------------------------------------------- before it is read


def _follow(file: BinaryIO) -> None:
    size_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(len(_OLD))
    file.seek(0)
    if start.startswith(_ZIP):
        _follow_archive(file)
    elif start == _OLD:
        for _ in range(_OLD_PICKLES):
            _follow_pickle(file, size_bytes)
    elif not start:
        raise _RefusedError("it is empty")
    else:
        raise _RefusedError("it is damaged, or it contains code, which srgan never runs")


def _follow_archive(file: BinaryIO) -> None:
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        names = [record.filename for record in records]
        if len(records) > _MAX_RECORDS or len(set(names)) < len(names):
            raise _RefusedError("its archive contains a name twice, or too many names")
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise _RefusedError("its archive is compressed, which torch's are not; it was packed by another program")
        size_bytes = file.seek(0, io.SEEK_END)
        if sum(record.file_size for record in records) > size_bytes:
            raise _RefusedError("its archive claims more than the file has")
        lengths = {name.partition("/")[2]: record.file_size for name, record in zip(names, records, strict=True)}
        pickles = [record for record in records if record.filename.endswith(".pkl")]
        if not any(record.filename.partition("/")[2] == "data.pkl" for record in pickles):
            raise _RefusedError("it is an archive, but not of weights")
        for record in pickles:
            with archive.open(record) as content:
                _follow_pickle(io.BytesIO(content.read()), lengths)


_SAME = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}  # operations that put items into a container
# Functions that torch allows: one takes as much memory as it is told, the other days for some encodings (punycode).
_GREEDY = {"builtins bytearray", "__builtin__ bytearray", "_codecs encode"}
_KEEP = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_TAKE = {"GET", "BINGET", "LONG_BINGET"}


def _follow_pickle(file: BinaryIO, lengths: Mapping[str, int] | int) -> None:
    """Interpret one pickle to its end. `lengths`: the size in bytes of each record beside it, or of all storages
    together.

    The size of a list or a dictionary is the current one; later growth is checked by `_look_through`. Hashable values
    (tuples) do not grow: torch's reader would not finish on two hundred nested ones.
    """
    stack: list[_Value | None] = []  # None: a mark
    memo: dict[int, _Value | None] = {}
    operations: Iterator[Any] = pickletools.genops(file)
    for step, (op, argument, _) in enumerate(operations):
        if step > _MAX_STEPS:
            raise _RefusedError(f"it takes more than {_MAX_STEPS:,} steps to unpack")
        if op.name in _KEEP:
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif op.name in _TAKE:
            stack.append(memo[argument])
        elif op.name == "MARK":
            stack.append(None)
        else:
            taken = _taken(stack, op.stack_before)
            _check_functions(op.name, taken)
            if op.name == "BINPERSID":
                _check_storage(taken[0].content, lengths)
            made = _made(op.name, argument, taken)
            if made.depth > _MAX_DEPTH:
                raise _RefusedError(f"it is nested deeper than {_MAX_DEPTH} levels")
            if made.size > _MAX_VALUES:
                raise _RefusedError(f"it expands to more than {_MAX_VALUES:,} values")
            stack += [made] * len(op.stack_after)


def _taken(stack: list[_Value | None], before: list[Any]) -> list[_Value]:
    """The operands that an operation takes from the stack, in the order in which they were pushed."""
    found: list[_Value] = []
    count = len(before)
    if pickletools.markobject in before:
        while (top := stack.pop()) is not None:
            found.append(top)
        count = before.index(pickletools.markobject)
    for _ in range(count):
        top = stack.pop()
        if top is None:
            raise _RefusedError("it is damaged")
        found.append(top)
    return found[::-1]


def _made(name: str, argument: Any, taken: list[_Value]) -> _Value:
    size = 1 + sum(value.size for value in taken)
    if name in _SAME and taken:
        return _Value(size, max(taken[0].depth, 1 + max((value.depth for value in taken[1:]), default=0)))
    depth = 1 + max((value.depth for value in taken), default=0)
    if not taken and isinstance(argument, str | int) and not isinstance(argument, bool):
        return _Value(size, depth, argument)
    if name == "STACK_GLOBAL":
        return _Value(size, depth, f"{taken[0].content} {taken[1].content}")
    if "TUPLE" in name and len(taken) <= 8:
        return _Value(size, depth, tuple(value.content for value in taken))
    return _Value(size, depth)


def _check_functions(name: str, taken: list[_Value]) -> None:
    """Refuse the use of a greedy function, except as pickle stores bytes: encoded from text in Latin-1."""
    for value in taken:
        if not isinstance(value.content, str) or value.content not in _GREEDY:
            continue
        arguments = taken[1].content if name == "REDUCE" and value.content == "_codecs encode" else None
        if not (isinstance(arguments, tuple) and arguments[1:] == ("latin1",)):
            raise _RefusedError(f"it calls {value.content.split()[1]}, which weights do not need")


def _check_storage(content: Any, lengths: Mapping[str, int] | int) -> None:
    """torch takes a storage's length from the pickle, and would read beyond its record."""
    if not (isinstance(content, tuple) and len(content) in (5, 6) and content[0] == "storage"):
        raise _RefusedError("it refers to something that is not a storage")
    kind, key, count = content[1], content[2], content[4]  # in old files, a sixth item is a view
    if not isinstance(count, int) or count < 0:
        raise _RefusedError("one of its storages has an impossible length")
    size_bytes = count * _item_bytes(str(kind))
    if size_bytes > lengths if isinstance(lengths, int) else size_bytes != lengths.get(f"data/{key}"):
        raise _RefusedError(f"its storage {shown(key)[:20]} is not as long as it says, so it is damaged")


def _item_bytes(kind: str) -> int:
    """Bytes per item: 4 for `torch FloatStorage`, for example."""
    name = kind.rpartition(" ")[2]
    if not name.endswith("Storage"):
        raise _RefusedError(f"it refers to a storage of an unknown kind, {shown(name)[:40]!r}")
    if name == "UntypedStorage":
        return 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch plans to remove these classes; existing files keep referring to them
        dtype = getattr(getattr(torch, name, None), "dtype", None)
    if not isinstance(dtype, torch.dtype):
        raise _RefusedError(f"it refers to a storage of an unknown kind, {shown(name)[:40]!r}")
    return dtype.itemsize


# ----------------------------------------------------------------------------------------------------- after it is read


def _look_through(found: object, size_bytes: int) -> None:
    """Refuse excessive nesting (such as a list that contains itself), and tensors larger than the file."""
    total = 0
    for count, value in enumerate(_inside(found)):
        if count > _MAX_VALUES:
            raise _RefusedError(f"it expands to more than {_MAX_VALUES:,} values")
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
                raise _RefusedError("it holds tensors that are not plain dense arrays")
            own = value.numel() * value.element_size()
            total += own
            if own > value.untyped_storage().nbytes() or total > _MAX_VIEWS * size_bytes:
                raise _RefusedError("its tensors claim more numbers than the file has")


def _inside(found: object) -> Iterator[object]:
    """Everything in it, without recursion."""
    todo = collections.deque([(found, 0)])
    while todo:
        value, depth = todo.pop()
        if depth > _MAX_DEPTH:
            raise _RefusedError(f"it is nested deeper than {_MAX_DEPTH} levels")
        yield value
        if isinstance(value, MutableMapping):
            todo.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            todo.extend((item, depth + 1) for item in value)
