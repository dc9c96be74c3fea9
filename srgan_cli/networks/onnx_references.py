"""Whether an ONNX file refers to other files, found without ONNX Runtime, which would read them.

The runtime looks for weights of a model in memory below the current folder, and even above it (`../x`), so whoever made
the file would choose what is read there. The field numbers are those of `onnx.proto`, the encoding is that of Protocol
Buffers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

# For each message, the fields that contain others.
_INSIDE: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL = frozenset((13, 14))  # of a tensor: where its data are; and whether (0: in the tensor itself)


def refers_to_files(data: bytes) -> bool:
    """Whether any tensor's data are in another file. Raises `ValueError` if it is not an ONNX file."""
    todo = [("model", memoryview(data))]
    while todo:
        kind, message = todo.pop()
        inside = _INSIDE[kind]
        for number, value in _fields(message):
            if kind == "tensor" and number in _EXTERNAL and value != 0:
                return True
            if number in inside and isinstance(value, memoryview):
                todo.append((inside[number], value))
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """The number and value of each field; fields of a fixed size count as 0."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(message, at)
        else:
            size = {1: 8, 5: 4}.get(wire, len(message) + 1)
        if at + size > len(message):
            raise ValueError("a field is longer than the file, or of an unknown kind")
        yield number, message[at : at + size] if wire == 2 else 0
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits per byte, and where it ends."""
    value = 0
    for place, byte in enumerate(message[at : at + 10]):
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a number has no end")
