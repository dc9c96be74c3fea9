"""Damaged or malicious files of torch.save: one sentence, quickly, and nothing in them is ever run."""

from __future__ import annotations

import ast
import collections
import io
import os
import pickle
import random
import re
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import srgan_cli
from srgan_cli.errors import WeightsError
from srgan_cli.networks import pickles
from srgan_cli.networks.features import load_features
from srgan_cli.networks.pickles import read_tensors
from srgan_cli.networks.weights import load_model
from srgan_cli.training import checkpoint

MAX_S = 5.0  # of the processor: the machine may be busy
P = b"\x80\x02"  # protocol 2
OLD = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))


def saved(value: object, *, old: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not old)
    return stream.getvalue()


def archive(content: bytes, records: Mapping[str, bytes] = {}, *, compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, data in {"data.pkl": content, "byteorder": b"little", "version": b"3\n", **records}.items():
            file.writestr(f"archive/{name}", data)
    return stream.getvalue()


def state() -> dict[str, object]:
    return {f"features.{n}.{kind}": torch.rand(4, 3, 3, 3) for n in range(3) for kind in ("weight", "bias")}


def deep_list(depth: int) -> bytes:
    return P + b"]" * depth + b"a" * (depth - 1) + b"."


def deep_dict(depth: int) -> bytes:
    return P + b"}X\1\0\0\0a" * depth + b"}" + b"s" * depth + b"."


def deep_tuple_as_key(depth: int) -> bytes:
    return P + b"})" + b"\x85" * depth + b"K\1s."


def wide_tuple_as_key(depth: int) -> bytes:
    """(t, t) of (t, t) of …: a small file, but 2^depth values when it is hashed."""
    steps = b"".join(bytes([ord("h"), n, ord("h"), n, 0x86, ord("q"), n + 1]) for n in range(depth))
    return P + b"})q\0" + steps + b"K\1s."


def grown_afterwards(depth: int) -> bytes:
    """Lists that are put into each other from the outside in, so that each is empty when it is put there."""
    steps = b"".join(b"]r" + (n + 1).to_bytes(4, "little") + b"a" + b"j" + (n + 1).to_bytes(4, "little")
                     for n in range(depth))  # fmt: skip
    return P + b"]q\0h\0" + steps + b"j\0\0\0\0."


def in_itself() -> bytes:
    return P + b"]q\0h\0a."


def storage(count: bytes, kind: bytes = b"FloatStorage", key: bytes = b"0") -> bytes:
    """One tensor over a storage that says it has `count` (a pickled number) items."""
    text = b"X" + len(key).to_bytes(4, "little") + key
    pid = b"(X\7\0\0\0storagectorch\n" + kind + b"\n" + text + b"X\3\0\0\0cpu" + count + b"tQ"
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + b"K\0K\4\x85K\1\x85\x89ccollections\nOrderedDict\n)RtR"
    return P + b"}X\1\0\0\0a" + rebuilt + b"s."


def stretched() -> bytes:
    return saved({"a": torch.zeros(1).expand(1 << 40)})


class Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


ENCODE = b"c_codecs\nencode\n"
REBUILD = b"ctorch\nTensor\nq\1" + b"0" + b"ctorch._tensor\n_rebuild_from_type_v2\n("
SLOW_TEXT = b"X" + (2 * 20_000).to_bytes(4, "little") + "".join(chr(200 + n % 1500) for n in range(20_000)).encode()

HOSTILE: dict[str, Callable[[], bytes]] = {
    **{
        f"{name} {depth} {shape.__name__}": lambda w=wrap, s=shape, d=depth: w(s(d))  # type: ignore[misc]
        for name, wrap in (("new", archive), ("old", lambda content: OLD + content + deep_list(1)))
        for shape in (deep_list, deep_dict, deep_tuple_as_key, grown_afterwards)
        for depth in (100, 5_000)
    },
    "wide key": lambda: archive(wide_tuple_as_key(60)),
    "wide key, old": lambda: OLD + wide_tuple_as_key(60) + deep_list(1),
    "in itself": lambda: archive(in_itself()),
    "negative storage": lambda: archive(storage(b"J\xff\xff\xff\xff"), {"data/0": bytes(16)}),
    "storage beyond its record": lambda: archive(storage(b"M\xff\x7f"), {"data/0": bytes(16)}),
    "storage of text": lambda: archive(storage(b"X\1\0\0\0a"), {"data/0": bytes(16)}),
    "storage of no kind": lambda: archive(storage(b"K\4", b"load"), {"data/0": bytes(16)}),
    "storage that is not there": lambda: archive(storage(b"K\4", key=b"7"), {"data/0": bytes(16)}),
    "old, huge storage": lambda: OLD + storage(b"\x8a\x08" + (1 << 40).to_bytes(8, "little")) + deep_list(1),
    "bytearray": lambda: archive(P + b"c__builtin__\nbytearray\n\x8a\x05\0\0\0\0\x02\x85R."),
    "bytearray, later": lambda: archive(P + REBUILD + b"cbuiltins\nbytearray\nh\1\x8a\x05\0\0\0\0\x02\x85}tR."),
    "slow encoding": lambda: archive(P + ENCODE + SLOW_TEXT + b"X\x08\0\0\0punycode\x86R."),
    "slow encoding, later": lambda: archive(P + REBUILD + ENCODE + b"h\1" + SLOW_TEXT + b"X\x08\0\0\0punycode\x86}tR."),
    "stretched": stretched,
    "meta": lambda: saved({"a": torch.empty(1 << 40, device="meta")}),
    "sparse": lambda: saved({"a": torch.zeros(3, 3).to_sparse()}),
    "compressed": lambda: archive(P + b"].", compression=zipfile.ZIP_DEFLATED),
    "bomb": lambda: archive(P + b"].", {"data/0": bytes(50_000_000)}, compression=zipfile.ZIP_DEFLATED),
    "archive of something else": lambda: archive(b"").replace(b"data.pkl", b"date.pkl"),
    "torch script": lambda: archive(deep_list(1), {"constants.pkl": deep_list(1), "code/a.py": b"import os"}),
    "no file": lambda: b"",
    "text": lambda: b"version https://git-lfs.github.com/spec/v1\n",
    "list": lambda: saved([torch.zeros(3)]),
    "number": lambda: saved(3),
    "odd keys": lambda: saved({3: torch.zeros(3), (1, 2): 5, None: "a"}),
    "OrderedDict of itself": lambda: archive(P + b"ccollections\nOrderedDict\n]q\0h\0a\x85R."),
}


def refused(path: Path) -> None:
    """By every reader, as a sentence, within the time."""
    for reader in (
        lambda: load_model(path),
        lambda: load_features("vgg19", ["conv1_1"], weights_file=path),
        lambda: checkpoint.load(path),
    ):
        began = time.process_time()
        with pytest.raises(WeightsError) as caught:
            reader()
        assert time.process_time() - began < MAX_S
        assert path.name in str(caught.value)
        assert len(str(caught.value)) < 600 + len(str(path))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_a_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"hostile{'.ckpt' if len(name) % 2 else '.pth'}"
    path.write_bytes(HOSTILE[name]())
    refused(path)


def test_a_pickle_of_too_many_steps_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "_MAX_STEPS", 10_000)
    path = tmp_path / "long.pth"
    path.write_bytes(archive(P + b"]" + b"K\1a" * 10_000 + b"."))
    refused(path)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_no_code_is_run(old: bool, protocol: int, tmp_path: Path) -> None:
    target = tmp_path / "made by the file"
    content = pickle.dumps({"a": Runs(target)}, protocol)
    path = tmp_path / "a.pth"
    for data in (OLD + content + deep_list(1) if old else archive(content), content):
        path.write_bytes(data)
        refused(path)
    assert not target.exists()


def test_torch_reads_in_one_place_only_and_without_programs() -> None:
    calls = [
        (path.name, ast.unparse(node))
        for path in Path(srgan_cli.__file__).parent.rglob("*.py")
        if path.parent.name != "crew"  # messages between a process and its own child processes, over pipes
        if re.search(r"\bloads?\b", text := path.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "pickle.load", "pickle.loads")
    ]
    assert calls == [("pickles.py", "torch.load(file, map_location='cpu', weights_only=True)")]


@pytest.mark.parametrize("old", [False, True])
def test_a_damaged_file_is_a_sentence_or_read(old: bool, tmp_path: Path) -> None:
    """Cut, with bytes changed, with parts moved: never a traceback, never a wait."""
    dice = random.Random(0)
    whole = saved({**state(), "more": {"list": [1, 2.5, "text", None, True], "half": torch.zeros(5).half()}}, old=old)
    path = tmp_path / "damaged.pth"
    for _ in range(300):
        data = bytearray(whole)
        kind = dice.randrange(3)
        if kind == 0:
            del data[dice.randrange(len(data)) :]
        elif kind == 1:
            for _ in range(dice.choice((1, 3, 30))):
                data[dice.randrange(len(data))] = dice.randrange(256)
        else:
            first, second = sorted(dice.randrange(len(data)) for _ in range(2))
            data[dice.randrange(len(data)) :] = data[first:second]
        path.write_bytes(data)
        began = time.process_time()
        try:
            read_tensors(path, "a file")
        except WeightsError as err:
            assert str(err).startswith("a file")  # noqa: PT017 - not every damage can be seen
        assert time.process_time() - began < MAX_S


@pytest.mark.parametrize("old", [False, True])
def test_what_is_sound_is_read_to_the_bit(old: bool, tmp_path: Path) -> None:
    tensors = {
        "float": torch.rand(3, 4), "half": torch.rand(5).half(), "bf16": torch.rand(2, 2).bfloat16(),
        "whole": torch.arange(6), "bool": torch.tensor([True, False]), "none": torch.zeros(0, 3),
        "view": torch.rand(4, 6)[1:3, ::2], "turned": torch.rand(2, 5).T, "one": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(torch.rand(3)),
    }  # fmt: skip
    shared = torch.rand(7)
    value = {"state": collections.OrderedDict(tensors), "shared": [shared, shared], "plain": (1, 2.5, "a", None)}
    (tmp_path / "a.pth").write_bytes(saved(value, old=old))
    for found in (read_tensors(saved(value, old=old), "a"), read_tensors(tmp_path / "a.pth", "a")):
        assert found["plain"] == value["plain"]
        for name, tensor in tensors.items():
            assert torch.equal(found["state"][name], tensor)
            assert found["state"][name].dtype == tensor.dtype
        assert torch.equal(found["shared"][1], shared)


DTYPES = (
    "bool", "uint8", "int8", "int16", "float16", "bfloat16", "int32", "float32", "int64", "float64", "complex64",
    "complex128",
)  # fmt: skip


def test_bytes_are_read_as_pickle_stores_them(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(saved({"a": torch.zeros(3), "made by": b"a program \xff"}))
    assert read_tensors(path, "a")["made by"] == b"a program \xff"


@pytest.mark.parametrize("name", DTYPES)
def test_numbers_of_every_kind_are_read_without_a_warning(name: str) -> None:
    """Torch's own classes for storages warn once in a process, which the tests take for an error."""
    numbers = torch.arange(2, dtype=torch.float32).to(getattr(torch, name))
    assert torch.equal(read_tensors(saved({"a": numbers}), "file")["a"], numbers)
