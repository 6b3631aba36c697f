"""Pickles read as data: what Python's own reader makes of plain values, and nothing that is named in them."""

import collections
import contextlib
import datetime
import enum
import pickle
import random
import sys

import numpy as np
import pytest
import torch

from lowbit.backbones.checkpoints.file_formats.memory_budget import MemoryBudget
from lowbit.backbones.checkpoints.file_formats.pickle_reader import PickleReader
from lowbit.backbones.checkpoints.file_formats.refusals import (
    DamagedError,
    ForeignClassError,
    RefusedError,
)
from lowbit.backbones.checkpoints.file_formats.stored_values import NoWeight, Skipped

PLAIN = {
    "texts": ["", "a", "ü", "😀", "line\nbreak", "quote'\"", "x" * 300],
    "numbers": [0, 1, -1, 255, 256, 65536, 2**31, -(2**63), 2**100, 0.5, -1e300],
    "constants": (None, True, False),
    "nested": {"a": [{"b": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4))}], "empty": {}},
}
TWICE = ["shared"]
PYTHONS = (ValueError, TypeError, AttributeError, OverflowError)


def read(data, **options):
    return PickleReader(memoryview(bytearray(data)), MemoryBudget(len(data)), **options).load()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_those_of_python(protocol):
    assert read(pickle.dumps(PLAIN, protocol)) == PLAIN
    first, second = read(pickle.dumps([TWICE, TWICE], protocol))
    assert first == TWICE and first is second
    assert read(pickle.dumps(collections.OrderedDict(a=1), protocol)) == {"a": 1}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8", ">i8", "u1", "?"])
def test_arrays_are_those_of_numpy(protocol, dtype):
    array = (np.arange(24).reshape(2, 3, 4) % 5).astype(dtype)
    for expected in (array, np.asfortranarray(array), array[:0], array[0, 0, 0, None]):
        found = read(pickle.dumps(expected, protocol)).value(MemoryBudget(0))
        np.testing.assert_array_equal(found.numpy(), expected)


def test_bytes_that_python_2_wrote_as_text():
    code = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R"
    code += b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\0K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
    code += b"J\xff\xff\xff\xffK\0tb\x89U\x08\0\0\x80?\0\0\0\xc0tb."
    assert pickle.loads(code, encoding="latin1").tolist() == [1, -2]
    assert read(code).value(MemoryBudget(0)).tolist() == [1, -2]


@pytest.mark.parametrize("dtype", ["longdouble", "complex64", "uint16", "U3", "O", "f4,i4"])
def test_arrays_that_are_no_weights(dtype):
    found = read(pickle.dumps(np.zeros((2, 3), dtype))).value(MemoryBudget(0))
    assert isinstance(found, NoWeight) and found.shape == (2, 3)


def test_settings_are_skipped():
    content = [{1, 2}, frozenset(), np.float64(1), datetime.date(2020, 1, 1), complex(1, 2)]
    assert all(isinstance(v, Skipped) for v in read(pickle.dumps(content)))


class Rare:
    pass


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [Rare(), Rare, enum.Flag, len, torch.nn.Linear(1, 1)])
def test_other_classes_are_named(protocol, value):
    name = getattr(value, "__qualname__", type(value).__qualname__)
    with pytest.raises(ForeignClassError, match=rf"names [\w.]*{name}, which is neither"):
        read(pickle.dumps([value], protocol))


def test_nothing_is_imported(tmp_path, monkeypatch):
    (tmp_path / "omegaconf_like.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ForeignClassError, match=r"omegaconf_like\.a"):
        read(b"\x80\x02comegaconf_like\na\n.")
    before = set(sys.modules)
    assert read(b"\x80\x02comegaconf.nodes\nAny\n.") is not None
    assert set(sys.modules) == before


def test_names_are_escaped():
    with pytest.raises(ForeignClassError, match=r"names a\\x1b\[2J\.b, which"):
        read(b"\x80\x02ca\x1b[2J\nb\n.")


def test_keys_are_texts_or_kept_apart():
    found = read(pickle.dumps({1: "a", (1, 2): "b", 1.5: "c", "d": "d"}))
    assert found["1"] == "a" and found["d"] == "d" and len(found) == 4


@pytest.mark.parametrize("data", [b"", b"hello", b"\x80\x02", b"N", b"(", b"\x80\x04h\x05.", b"R."])
def test_what_is_no_pickle(data):
    with pytest.raises(DamagedError):
        read(data)


def test_damage_is_an_error_of_ours_or_pythons():
    """No damage may end the process, or make a reader go on for ever."""
    good = pickle.dumps({"a": np.ones(3), "b": PLAIN}, 4)
    rng = random.Random(0)
    for _ in range(3000):
        data = bytearray(good)
        data[rng.randrange(len(data))] = rng.randrange(256)
        with contextlib.suppress(DamagedError, RefusedError, *PYTHONS):
            read(data)


def test_a_persistent_id_is_handed_over():
    assert read(b"\x80\x02X\x01\0\0\0aQ.", persistent=lambda key: key * 2) == "aa"
    with pytest.raises(DamagedError, match="outside"):
        read(b"\x80\x02X\x01\0\0\0aQ.")
