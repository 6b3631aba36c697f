"""Page headers are what readers believe: they are held to the rows, and text to few words."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lowbit.common.input_files.parquet_pages import Bounds, _read_header, check_pages

ROWS = 5000
FEW = Bounds(footer=20_000, rows=ROWS, values=3 * ROWS, groups=4, words=3, word_bytes=64)


def column(words, rows=ROWS):
    codes = pa.array(np.arange(rows) % len(words), pa.int32())
    return pa.DictionaryArray.from_arrays(codes, words)


def table(words=("test", "val"), rows=ROWS):
    numbers = np.random.default_rng(0).integers(0, 1000, rows)
    return pa.table(
        {"split": column(list(words), rows), "id": numbers, "label": pa.array(numbers, pa.int16())}
    )


def write(path, content, **options):
    pq.write_table(content, path, **{"compression": "zstd"} | options)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"data_page_version": "2.0"},
        {"compression": "none"},
        {"compression": "snappy", "row_group_size": 1250},
        {"use_dictionary": False},
        {"use_dictionary": ["split"], "write_page_checksum": True},
        {"data_page_size": 1000, "write_page_index": True},
        {"version": "1.0", "write_statistics": False},
    ],
)
def test_what_writers_write_passes(tmp_path, options):
    path = write(tmp_path / "a", table(), **options)
    assert check_pages(path, FEW) == ROWS


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (table(rows=ROWS + 1), {}, "5,001 rows, where 5,000 are allowed"),
        (table().append_column("x", pa.array([0] * ROWS)), {}, "20,000 values, where 15,000"),
        (table(), {"row_group_size": 1000}, "5 row groups, where 4"),
        (table("abcd"), {}, "'split' has a page of 4 values and .* where 3 and 64"),
        (table(["t" * 80, "v"]), {}, "'split' has a page of 2 values and 89 bytes, where 3 and 64"),
        (table(["t" * 80, "v"]), {"use_dictionary": False}, "'split' has a page of"),
        (table(), {"use_dictionary": False, "column_encoding": {"split": "DELTA_BYTE_ARRAY"}},
         "'split' is encoded in another way"),
        (table(), {"use_dictionary": False, "column_encoding": {"id": "DELTA_BINARY_PACKED"}},
         "'id' is encoded in another way"),
        (table().replace_schema_metadata({"a": "x" * 20_000}), {}, "its footer has"),
    ],
)  # fmt: skip
def test_what_would_grow_is_refused(tmp_path, content, options, said):
    path = write(tmp_path / "a", content, **options)
    with pytest.raises(ValueError, match=said):
        check_pages(path, FEW)


def _header_places(data: bytes):
    """Yield the column, the position and the fields of every page header."""
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    for number in range(group.num_columns):
        facts = group.column(number)
        at = facts.dictionary_page_offset or facts.data_page_offset
        end = at + facts.total_compressed_size
        while at < end:
            fields, start = _read_header(io.BytesIO(data), at)
            yield facts.path_in_schema, at, fields
            at = start + fields[3]


def _zigzag(number: int) -> bytes:
    number, out = number << 1, b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def test_a_header_that_announces_more_than_the_footer_is_refused(tmp_path):
    """Readers allocate what it says, up to 2 GiB, whatever the footer says."""
    data = write(tmp_path / "a", table(), use_dictionary=["split"]).read_bytes()
    tried = 0
    for name, at, fields in _header_places(data):
        place, length = at + 3, len(_zigzag(fields[2]))  # after the type, and what fields they are
        assert data[place : place + length] == _zigzag(fields[2])
        wanted = 2 ** (7 * length - 1) - 1  # in as many bytes
        if wanted < 16 * ROWS + 1024:
            continue
        (tmp_path / "b").write_bytes(data[:place] + _zigzag(wanted) + data[place + length :])
        with pytest.raises(ValueError, match=f"'{name}' has a page of .* {wanted:,} bytes"):
            check_pages(tmp_path / "b", FEW)
        tried += 1
    assert tried >= 2


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet", b"PAR1" + b"\xff" * 4 + b"PAR1"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match="it is no Parquet file"):
        check_pages(tmp_path / "a", FEW)
    with pytest.raises(ValueError, match="it is a folder, not a file"):
        check_pages(tmp_path, FEW)
