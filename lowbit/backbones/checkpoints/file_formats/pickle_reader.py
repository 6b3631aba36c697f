"""Read pickles as data. Classes and functions become `pickled_classes.Named`; nothing is imported or called.

Protocols 0 to 5, as documented in CPython's `Lib/pickletools.py`. Long bytes are views of the file.
"""

import codecs
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from lowbit.backbones.checkpoints.file_formats.memory_budget import MemoryBudget
from lowbit.backbones.checkpoints.file_formats.pickled_classes import construct, named
from lowbit.backbones.checkpoints.file_formats.refusals import DamagedError, RefusedError
from lowbit.backbones.checkpoints.file_formats.stored_values import ArrayType, Skipped, StoredArray
from lowbit.common.text import size

_OPERATION_COST = 100  # bytes: an entry of the memo, or of a dictionary that grows
_CALL_COST = 500  # bytes: a tensor with its sizes
_LONGEST_LINE = 2**12  # bytes of a name or number that ends with its line
_LONGEST_INTEGER = 64  # bytes
_WIDE = 0xC4  # first byte of a character beyond Latin-1, in UTF-8
_LONG_TEXT = 2**24  # bytes; longer ones hold an array's bytes as Latin-1


class PickleReader:
    """Reads the pickles that follow one another in `data`.

    Args:
        data: the file, or the part of it that holds pickles.
        budget: which the objects count against.
        persistent: returns what a persistent id stands for.
    """

    def __init__(
        self,
        data: memoryview,
        budget: MemoryBudget,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.position = 0
        self._data, self._budget, self._persistent = data, budget, persistent

    def load(self) -> Any:
        """Return the next pickle's object; `position` is then behind it.

        Raises:
            DamagedError: these bytes are no pickle.
            ForeignClassError: it names a class that does not belong in a checkpoint.
            RefusedError: it would take too much memory.
        """
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        data, take = self._data, self._budget.take
        try:
            while (code := data[self.position]) != _STOP:
                self.position += 1
                operation = _OPERATIONS.get(code)
                if operation is None:
                    raise DamagedError(f"byte {self.position - 1} is no operation of a pickle")
                take(_OPERATION_COST)
                operation(self)
            self.position += 1
            return self._stack.pop()
        except (IndexError, KeyError, struct.error) as error:
            raise DamagedError(f"the pickle breaks off at byte {self.position}") from error

    def _bytes(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self._data):
            raise DamagedError(f"the pickle is cut short at byte {self.position}")
        found = self._data[self.position : end]
        self.position = end
        return found

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._bytes(struct.calcsize(layout)))[0]

    def _line(self, longest: int = _LONGEST_LINE) -> bytes:
        start, length = self.position, _LONGEST_LINE
        while length <= longest:
            line, end, _ = bytes(self._data[start : start + length]).partition(b"\n")
            if end:
                self.position = start + len(line) + 1
                self._budget.take(len(line))
                return line
            length *= 4
        raise DamagedError(f"a line of the pickle does not end, from byte {start}")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _push_new(self, value: Any) -> None:
        self._budget.take(sys.getsizeof(value))
        self._stack.append(value)

    def _to_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marks.pop()
        return items

    # text, bytes and numbers

    def _text(self, count: int) -> None:
        data = self._bytes(count)
        self._budget.take(count)
        if count > _LONG_TEXT and np.frombuffer(data, np.uint8).max() >= _WIDE:
            raise RefusedError(
                f"holds a text of {size(count)}", "Save the network's state_dict alone."
            )
        text = str(data, "utf-8", "surrogatepass")
        self._budget.take(max(0, sys.getsizeof(text) - count))
        self._push(text)

    def _raw_text(self, count: int) -> None:
        self._push_new(str(self._bytes(count), "latin1"))

    def _quoted(self) -> None:
        value, _ = codecs.escape_decode(self._line(_LONG_TEXT).strip()[1:-1])
        self._push_new(value.decode("latin1"))

    def _raw_unicode(self) -> None:
        self._push_new(str(self._line(_LONG_TEXT), "raw-unicode-escape"))

    def _integer_line(self) -> None:
        line = self._line()
        if line in (b"00", b"01"):
            self._push(line == b"01")
        else:
            self._push_new(int(line.rstrip(b"L")))

    def _integer(self, count: int) -> None:
        if not 0 <= count <= _LONGEST_INTEGER:
            raise DamagedError("a pickle holds an integer of many digits")
        self._push_new(int.from_bytes(self._bytes(count), "little", signed=True))

    # containers

    def _mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _tuple(self, items: list[Any]) -> None:
        self._push_new(tuple(items))

    def _last(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Skipped):
            raise DamagedError("a pickle appends to what is no list")

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[_key(key)] = value
        elif not isinstance(target, Skipped):
            raise DamagedError("a pickle adds a key to what is no dictionary")

    def _dictionary(self, items: list[Any]) -> None:
        self._push_new({})
        self._set_items(items)

    # objects

    def _global(self) -> None:
        module, name = self._line().decode(), self._line().decode()
        self._name(module, name)

    def _stack_global(self) -> None:
        module, name = self._last(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise DamagedError("a pickle names a class by what is no text")
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        self._budget.take(len(module) + len(name))
        self._push(named(module, name))

    def _call(self, function: Any, arguments: Any) -> None:
        first = arguments[0] if isinstance(arguments, tuple) and arguments else ()
        copied = len(first) if isinstance(first, list) else 0  # pairs of a dictionary
        self._budget.take(_CALL_COST + _OPERATION_COST * copied)
        self._push(construct(function, arguments))

    def _instance(self) -> None:
        self._global()
        self._call(self._stack.pop(), tuple(self._to_mark()))

    def _instance_of_mark(self) -> None:
        function, *arguments = self._to_mark()
        self._call(function, tuple(arguments))

    def _build(self) -> None:
        state = self._stack.pop()
        if isinstance(self._stack[-1], StoredArray | ArrayType):
            self._stack[-1].build(state)

    def _persistent_id(self) -> None:
        if self._persistent is None:
            raise DamagedError("a pickle refers to what is outside of it")
        self._push_new(self._persistent(self._stack.pop()))

    # stack and memo

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._to_mark()

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]


def _key(key: Any) -> Any:
    """Return a key that can be hashed soon, whatever a file says.

    Tuples are hashed with all that they contain, again and again, and integers can be chosen so that
    they collide.
    """
    if isinstance(key, str):
        return key
    return str(key) if isinstance(key, int) else Skipped()


_STOP = ord(".")
_R = PickleReader
_OPERATIONS: dict[int, Callable[[PickleReader], Any]] = {
    0x80: lambda r: r._bytes(1),  # PROTO
    0x95: lambda r: r._bytes(8),  # FRAME
    ord("N"): lambda r: r._push(None),
    0x88: lambda r: r._push(True),
    0x89: lambda r: r._push(False),
    ord("I"): _R._integer_line,
    ord("L"): _R._integer_line,
    ord("F"): lambda r: r._push_new(float(r._line())),
    ord("J"): lambda r: r._push_new(r._number("<i")),
    ord("K"): lambda r: r._push(r._number("<B")),
    ord("M"): lambda r: r._push_new(r._number("<H")),
    ord("G"): lambda r: r._push_new(r._number(">d")),
    0x8A: lambda r: r._integer(r._number("<B")),
    0x8B: lambda r: r._integer(r._number("<i")),
    ord("X"): lambda r: r._text(r._number("<I")),
    0x8C: lambda r: r._text(r._number("<B")),
    0x8D: lambda r: r._text(r._number("<Q")),
    ord("V"): _R._raw_unicode,
    ord("S"): _R._quoted,
    ord("T"): lambda r: r._raw_text(r._number("<I")),
    ord("U"): lambda r: r._raw_text(r._number("<B")),
    ord("B"): lambda r: r._push_new(r._bytes(r._number("<I"))),
    ord("C"): lambda r: r._push_new(r._bytes(r._number("<B"))),
    0x8E: lambda r: r._push_new(r._bytes(r._number("<Q"))),
    0x96: lambda r: r._push_new(r._bytes(r._number("<Q"))),
    ord("("): _R._mark,
    ord("0"): _R._pop,
    ord("1"): _R._to_mark,
    ord("2"): lambda r: r._push(r._stack[-1]),
    ord(")"): lambda r: r._push(()),
    ord("t"): lambda r: r._tuple(r._to_mark()),
    0x85: lambda r: r._tuple(r._last(1)),
    0x86: lambda r: r._tuple(r._last(2)),
    0x87: lambda r: r._tuple(r._last(3)),
    ord("]"): lambda r: r._push_new([]),
    ord("l"): lambda r: r._push_new(r._to_mark()),
    ord("a"): lambda r: r._extend(r._last(1)),
    ord("e"): lambda r: r._extend(r._to_mark()),
    ord("}"): lambda r: r._push_new({}),
    ord("d"): lambda r: r._dictionary(r._to_mark()),
    ord("s"): lambda r: r._set_items(r._last(2)),
    ord("u"): lambda r: r._set_items(r._to_mark()),
    0x8F: lambda r: r._push_new(Skipped()),  # EMPTY_SET
    0x90: lambda r: r._to_mark(),  # ADDITEMS
    0x91: lambda r: (r._to_mark(), r._push_new(Skipped())),  # FROZENSET
    ord("c"): _R._global,
    0x93: _R._stack_global,
    ord("i"): _R._instance,
    ord("o"): _R._instance_of_mark,
    ord("R"): lambda r: r._call(*r._last(2)),
    0x81: lambda r: r._call(*r._last(2)),  # NEWOBJ
    0x92: lambda r: r._call(*r._last(3)[:2]),  # NEWOBJ_EX
    ord("b"): _R._build,
    ord("Q"): _R._persistent_id,
    ord("q"): lambda r: r._put(r._number("<B")),
    ord("r"): lambda r: r._put(r._number("<I")),
    ord("p"): lambda r: r._put(int(r._line())),
    0x94: lambda r: r._put(len(r._memo)),  # MEMOIZE
    ord("h"): lambda r: r._push(r._memo[r._number("<B")]),
    ord("j"): lambda r: r._push(r._memo[r._number("<I")]),
    ord("g"): lambda r: r._push(r._memo[int(r._line())]),
}
