"""Bound a Parquet file by its page headers, before a reader believes what they announce.

The footer of a file says how large its columns are, and nobody checks it: readers allocate and
decompress what each page's own header announces. Headers are structs of Thrift's compact protocol; see
https://parquet.apache.org/docs/file-format/ and its parquet.thrift for the numbers of their fields.
"""

import os
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lowbit.common.input_files.regular_file import check_regular
from lowbit.common.text import brief, size

_MAGIC = b"PAR1"
_LONGEST_HEADER = 1 << 16  # bytes; statistics of a page are in it
_FEW_PAGES, _ROWS_PER_PAGE = 16, 256  # writers put thousands of rows on a page
_DEEPEST = 8  # structs inside each other in a header
_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3  # PageType
_PLAIN, _PLAIN_DICTIONARY, _RLE_DICTIONARY = 0, 2, 8  # Encoding
# Fields of PageHeader, and of the headers of the kinds of pages.
_TYPE, _SIZE, _STORED, _HEADERS = 1, 2, 3, {_DATA: 5, _DICTIONARY: 7, _DATA_2: 8}
# Of FileMetaData, SchemaElement, RowGroup, ColumnChunk and ColumnMetaData.
_SCHEMA, _ROWS, _GROUPS = 2, 3, 4
_LEAF_TYPE, _NAME = 1, 4
_CHUNKS, _GROUP_ROWS, _META = 1, 3, 3
_COLUMN_TYPE, _VALUES, _COMPRESSED, _DATA_AT, _DICTIONARY_AT = 1, 5, 7, 9, 11
_BYTE_ARRAY = 6  # Type
_LONGEST_LIST = 1 << 16
_COUNT, _ENCODING = 1, {_DATA: 2, _DICTIONARY: 2, _DATA_2: 4}


class Bounds(NamedTuple):
    """What a file may have.

    Attributes:
        footer: bytes of the footer.
        rows: of all row groups.
        values: of all columns, rows times columns.
        groups: row groups.
        words: values in the dictionary of a column of text; read the column as its codes.
        word_bytes: of such a dictionary. Values outside one may have 32 bytes each, on average.
    """

    footer: int = 1 << 20
    rows: int = 1_000_000
    values: int = 8_000_000
    groups: int = 1_000
    words: int = 64
    word_bytes: int = 1 << 14


def check_pages(path: str | os.PathLike, bounds: Bounds) -> int:
    """Check all that a reader of a file would expand; return the number of its rows.

    The footer is read here as well: pyarrow 26 ends the process where some of its statistics are wrong.

    Raises:
        OSError: there is no such file.
        ValueError: it is no Parquet file, it has more than it may, or a column is encoded in a way that
            has no bound.
    """
    check_regular(path)
    with Path(path).open("rb") as file:
        footer = _read_footer(file, bounds.footer)
        try:
            schema, rows, groups = footer[_SCHEMA], footer[_ROWS], footer[_GROUPS]
            for leaf in schema[1:]:
                if _LEAF_TYPE not in leaf:
                    raise ValueError(
                        f"its column {brief(leaf[_NAME].decode())} has other columns in it"
                    )
            leaves = [(leaf[_NAME].decode(), leaf[_LEAF_TYPE]) for leaf in schema[1:]]
            chunks = [
                (group[_GROUP_ROWS], [chunk[_META] for chunk in group[_CHUNKS]]) for group in groups
            ]
            counts = (
                (len(groups), bounds.groups, "row groups"),
                (rows, bounds.rows, "rows"),
                (rows * len(leaves), bounds.values, "values"),
            )
            for found, most, what in counts:
                if not 0 <= found <= most:
                    raise ValueError(f"it has {found:,} {what}, where {most:,} are allowed")
            if sum(count for count, _ in chunks) != rows:
                raise ValueError("its row groups have other rows than it says")
            for count, columns in chunks:
                for (name, kind), column in zip(leaves, columns, strict=True):
                    if column[_COLUMN_TYPE] != kind:
                        raise ValueError(f"its column {brief(name)} has two types")
                    _check_column(file, brief(name), column, count, bounds)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                "it is no Parquet file of a table: its footer is incomplete"
            ) from error
    return rows


def _read_footer(file: BinaryIO, most: int) -> dict[int, Any]:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 8))
    length, magic = int.from_bytes(file.read(4), "little"), file.read(4)
    if magic != _MAGIC or length + 8 > end:
        raise ValueError("it is no Parquet file")
    if length > most:
        raise ValueError(f"its footer has {size(length)}, where {size(most)} are allowed")
    file.seek(end - 8 - length)
    try:
        return _Compact(file.read(length)).struct()
    except IndexError as error:
        raise ValueError("it is no Parquet file: its footer does not end") from error


def _check_column(
    file: BinaryIO, name: str, column: dict[int, Any], rows: int, bounds: Bounds
) -> None:
    """Walk the pages of a column in a row group."""
    at, text = column[_DATA_AT], column[_COLUMN_TYPE] == _BYTE_ARRAY
    if 0 < column.get(_DICTIONARY_AT, 0) < at:  # as readers decide
        at = column[_DICTIONARY_AT]
    end, seen, pages = at + column[_COMPRESSED], 0, 0
    if column[_VALUES] != rows or at < 0:
        raise ValueError(f"its column {name} has other rows than the others")
    while at < end:
        page, start = _read_header(file, at)
        kind = page.get(_TYPE)
        header = page.get(_HEADERS.get(kind))
        if not isinstance(header, dict) or (kind == _DICTIONARY and pages):
            raise ValueError(f"its column {name} has a page of an unknown kind")
        pages += 1
        if pages > _FEW_PAGES + rows // _ROWS_PER_PAGE:
            raise ValueError(f"its column {name} has more pages than a job writes")
        count, expanded = header.get(_COUNT, -1), page.get(_SIZE, -1)
        encoding = header.get(_ENCODING[kind])
        by_code = encoding in (_PLAIN_DICTIONARY, _RLE_DICTIONARY)
        if kind == _DICTIONARY:
            most = bounds.words if text else rows
            most_bytes = bounds.word_bytes if text else 8 * rows
        else:
            seen += count
            most, most_bytes = rows - seen + count, 1024 + (32 if text else 16) * count
            if not by_code and encoding != _PLAIN:
                raise ValueError(f"its column {name} is encoded in another way than a job's")
        if not (0 <= count <= most and 0 <= expanded <= most_bytes):
            raise ValueError(
                f"its column {name} has a page of {count:,} values and {expanded:,} bytes, where "
                f"{most:,} and {most_bytes:,} are allowed"
            )
        at = start + max(0, page.get(_STORED, 0))
    if at != end or seen != rows:
        raise ValueError(f"its column {name} has other pages than it says")


def _read_header(file: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    """Return the fields of the page header at a position, and where it ends."""
    file.seek(at)
    reader = _Compact(file.read(_LONGEST_HEADER))
    try:
        return reader.struct(), at + reader.at
    except IndexError as error:
        raise ValueError("a page header does not end") from error


class _Compact:
    """Thrift's compact protocol, as far as Parquet uses it."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Return the fields of a struct by number."""
        if depth > _DEEPEST:
            raise ValueError("a header is nested too deeply")
        fields, number = {}, 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            fields[number] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        match kind:
            case 1 | 2:  # true, false
                return kind == 1
            case 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._zigzag()
            case 7:
                return self._skip(8)
            case 8:
                length = self._varint()
                self._skip(length)
                return self._data[self.at - length : self.at]
            case 9 | 10:
                return self._list(depth)
            case 12:
                return self.struct(depth + 1)
        raise ValueError("a header has a field of an unknown type")

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        count = self._varint() if head >> 4 == 15 else head >> 4
        if count > _LONGEST_LIST:
            raise ValueError(f"a list of {count:,} is longer than {_LONGEST_LIST:,}")
        if head & 15 in (1, 2):
            return [self._byte() == 1 for _ in range(count)]
        return [self._value(head & 15, depth) for _ in range(count)]

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self._data):
            raise IndexError

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a header has an endless number")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
