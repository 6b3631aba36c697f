"""Checkpoint files that grow, tie themselves in knots, or are not what they seem, each in a few lines."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping

import numpy as np
import torch

GLOBAL_TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
PROTOCOL = b"\x80\x04"


def saved(content: object, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def archive(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def safetensors(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def storage(count: int, kind: bytes = b"FloatStorage", key: bytes = b"0") -> bytes:
    """Opcodes that push a storage."""
    return (
        b"(X\x07\0\0\0storagectorch\n" + kind + b"\nX" + struct.pack("<I", len(key)) + key
        + b"X\x03\0\0\0cpuJ" + struct.pack("<i", count) + b"tQ"
    )  # fmt: skip


def tensors_over_one(tensors: int, elements: int) -> bytes:
    """An archive with many tensors, each over all of one storage."""
    body = b"\x80\x02}(" + storage(elements) + b"q\x00"
    size = b"J" + struct.pack("<i", elements) + b"\x85q\x01"
    body += b"0" + size + b"0"
    for number in range(tensors):
        name = f"layer{number}.weight".encode()
        body += b"X" + struct.pack("<I", len(name)) + name
        body += GLOBAL_TENSOR + b"(h\x00K\x00h\x01K\x01\x85\x89}tR"
    return archive({"a/data.pkl": body + b"u.", "a/data/0": bytes(4 * elements)})


def stride_of_zero() -> bytes:
    return saved({"conv1.weight": torch.zeros(1).expand(2**18, 2**18)})


def array_read_again(times: int, megabytes: int) -> bytes:
    """A pickle with many arrays over the same bytes."""
    data = bytes(megabytes * 10**6)
    body = PROTOCOL + b"}(" + b"\x8e" + struct.pack("<Q", len(data)) + data + b"\x940"
    dtype = b"cnumpy\ndtype\nX\x02\0\0\0f4\x85R"
    body += dtype + b"\x940"
    for number in range(times):
        name = f"a{number}".encode()
        body += b"X" + struct.pack("<I", len(name)) + name
        body += b"cnumpy.core.numeric\n_frombuffer\n(h\x00h\x01J"
        body += struct.pack("<i", len(data) // 4) + b"\x85X\x01\0\0\0CtR"
    return body + b"u."


def repeated(operation: bytes, times: int) -> bytes:
    """A pickle of a list, or of what has no end, that grows by each of its bytes."""
    return PROTOCOL + b"(" + operation * times + b"l."


def knot() -> dict:
    """A mapping that contains itself, and paths to it that double at each step."""
    inner: dict = {"w": torch.zeros(1)}
    inner["again"] = inner
    for _ in range(40):
        inner = {"left": inner, "right": inner, "back": inner}
    return inner


def doubled_tuple(depth: int) -> bytes:
    """A pickle with a key whose hash takes 2 to the power of `depth` steps, and a nested one."""
    key = b")" + b"2\x86" * depth
    return PROTOCOL + b"}(" + key + b"NX\x01\0\0\0wNu."


def nested_tuple(depth: int) -> bytes:
    return PROTOCOL + b"}(" + b")" + b"\x85" * depth + b"Nu."


def colliding_keys(count: int) -> bytes:
    """A pickle with integers as keys that have one hash."""
    keys = ((number * (2**61 - 1)).to_bytes(12, "little") for number in range(1, count + 1))
    return PROTOCOL + b"}(" + b"".join(b"\x8a\x0c" + key + b"N" for key in keys) + b"u."


def many_members(count: int) -> bytes:
    """An archive with many members of no bytes."""
    entry = struct.pack("<4s4B4H3L5H2L", b"PK\1\2", 20, 0, 20, 0, *[0] * 9, *[0] * 5)
    entries = b"".join(
        entry[:28] + struct.pack("<H", 8) + entry[30:] + f"{number:08}".encode()
        for number in range(count)
    )
    local = struct.pack("<4s2B4H3L2H", b"PK\3\4", 20, 0, *[0] * 9)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    at = len(local) + len(entries)
    end_64 = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(entries), len(local)
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    return local + entries + end_64 + locator + end


def deep_block() -> dict[str, torch.Tensor]:
    return {"layer3.99999999.conv1.weight": torch.zeros(1), "conv1.weight": torch.zeros(1)}


FILES: dict[str, Callable[[], bytes]] = {
    "a mapping in itself": lambda: saved(knot()),
    "tensors over one storage": lambda: tensors_over_one(2000, 250_000),
    "a stride of 0": stride_of_zero,
    "arrays over the same bytes": lambda: array_read_again(2000, 1),
    "lists": lambda: repeated(b"]", 9_000_000),
    "dictionaries": lambda: repeated(b"}", 9_000_000),
    "sets": lambda: repeated(b"\x8f", 9_000_000),
    "marks": lambda: repeated(b"(", 9_000_000),
    "numbers": lambda: repeated(b"J\x01\x02\x03\x04", 1_800_000),
    "memo": lambda: repeated(b"N\x94", 4_500_000),
    "tuples": lambda: repeated(b"]\x85", 4_500_000),
    "names": lambda: PROTOCOL + b"(" + b"cnumpy\n" + b"a" * 900 + b"\n\x94" + b"X\x05\0\0\0numpy\x94"
    + b"X\x84\3\0\0" + b"b" * 900 + b"\x94" + b"h\x01h\x02\x93" * 500_000 + b"l.",
    "calls": lambda: PROTOCOL + b"(" + b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n\x94"
    + b"N(" + b"K\x01" * 60 + b"t\x86\x94" + b"h\0h\1R" * 500_000 + b"l.",
    "texts": lambda: PROTOCOL + b"(" + b"X" + struct.pack("<I", 1_000_000) + b"a" * 1_000_000 + b"\x94"
    + b"c_codecs\nencode\n\x94" + b"h\x01h\x00\x85R" * 2000 + b"l.",
    "a wide text": lambda: PROTOCOL + b"X" + struct.pack("<I", 40_000_004) + b"a" * 40_000_000
    + "😀".encode() + b".",
    "pairs": lambda: PROTOCOL + b"((" + b"X\x01\0\0\0a" b"N\x86" * 100_000 + b"l\x85\x94"
    + b"ccollections\nOrderedDict\n\x94" + b"h\x01h\x00R" * 2000 + b"l.",
    "a hash without end": lambda: doubled_tuple(60),
    "a deep hash": lambda: nested_tuple(1_000_000),
    "keys of one hash": lambda: colliding_keys(100_000),
    "members": lambda: many_members(400_000),
    "compressed members": lambda: archive(
        {"a/data.pkl": pickle.dumps({}, 2), "a/data/0": bytes(10_000_000)}, zipfile.ZIP_DEFLATED
    ),
    "a compressed NumPy archive": lambda: _npz(),
    "a header of lists": lambda: safetensors(b'{"a":[' + b"[]," * 1_200_000 + b"[]]}"),
    "a long header": lambda: safetensors(b'{"a":[' + b"[]," * 5_000_000 + b"[]]}"),
    "a deep header": lambda: safetensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "many names": lambda: safetensors(
        {f"p{n}.layer4.1.bn2.running_var": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(20_001)}
    ),
    "names of one end": lambda: safetensors(
        {f"p{n}.layer4.1.bn2.running_var": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(19_000)}
    ),
    "many containers": lambda: saved({f"c{n}": {"conv1.weight": torch.zeros(1)} for n in range(3000)}),
    "a block of a high number": lambda: saved(deep_block()),
    "a sparse tensor without end": lambda: saved(
        {"conv1.weight": torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (2**30, 2**30))}
    ),
}  # fmt: skip


MANY_OBJECTS = (
    "lists", "dictionaries", "sets", "marks", "numbers", "memo", "tuples", "names", "calls",
    "members", "a header of lists", "a deep hash",
)  # fmt: skip
"""Those that take a second or more: refused once their objects are too many."""


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.zeros(10_000_000, np.float32))
    return buffer.getvalue()
