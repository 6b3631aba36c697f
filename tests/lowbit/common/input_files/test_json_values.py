"""JSON of others: within its bounds as the standard library reads it, beyond them refused unparsed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowbit.common.input_files.json_values import count_values, parse_json

_TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text() | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def read(data, *, limit=10_000, values=1000, **bounds):
    return parse_json(data, "it", limit=limit, values=values, **bounds)


def _reference_count(value):
    """Values as a text counts them: each but the first of a list or mapping has a comma before it."""
    if isinstance(value, dict):
        inner = [len(value), *map(_reference_count, value.values())]  # a colon each
    elif isinstance(value, list):
        inner = list(map(_reference_count, value))
    else:
        return 0
    return 1 + max(0, len(value) - 1) + sum(inner)


@given(_TREES, st.booleans())
def test_it_is_what_the_standard_library_reads(value, ascii_only):
    data = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    if b"\xed" in data and not ascii_only:
        return  # half a character may be written only as an escape
    assert read(data) == value
    assert count_values(data) == 1 + _reference_count(value)


def _depth_of(levels):
    return b"[" * levels + b"]" * levels


def test_bounds_are_met_exactly():
    assert read(b"[1]", limit=3) == [1]
    with pytest.raises(ValueError, match="it cannot be read: it is longer than 2 bytes"):
        read(b"[1]", limit=2)
    data = b'{"a": [1, 2], ",[": "\\"[,"}'
    assert count_values(data) == 7
    assert read(data, values=7)["a"] == [1, 2]
    with pytest.raises(ValueError, match="7 values, where 6 are allowed"):
        read(data, values=6)
    assert read(_depth_of(5), depth=5) == [[[[[]]]]]
    with pytest.raises(ValueError, match="nested too deeply: more than 5 levels"):
        read(_depth_of(6), depth=5)
    assert read(b'["' + b"[" * 99 + b'"]', depth=1) == ["[" * 99]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "Expecting value"),
        (b"[1", "Expecting"),
        (b'{"a": 1, "a": 2}', "a key is given twice"),
        (b"[NaN]", "NaN is no number"),
        (b"[-Infinity]", "-Infinity is no number"),
        (b"[1e999]", "1e999 is no finite number"),
        (b"1" * 5000, "a number of 5,000 digits"),
        (b'"\xff"', "utf-8"),
        (b'["\\"\\"\\"', "Unterminated string"),
        (b'["a\x1b[2J"]', "Invalid control character"),
        (b"]]]]", "Expecting value"),
    ],
)
def test_other_texts_are_refused(data, said):
    with pytest.raises(ValueError, match=f"^it cannot be read: .*{said}") as caught:
        read(data)
    assert str(caught.value).isprintable()


def test_a_text_that_does_not_end_takes_time_in_its_length_alone():
    """A pattern that begins anew at every quote would take hours."""
    with pytest.raises(ValueError, match="Unterminated"):
        read(b'["' + b'\\"' * 10**6, limit=10**7)
