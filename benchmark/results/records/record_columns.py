"""The columns in which records are kept: a row a result file, with a list of its numbers.

What the jobs of a sweep share, settings and backbones, is found and converted once and then repeated.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from lowbit.benchmark.results.records import make_record
from lowbit.benchmark.results.records.make_record import (
    BACKBONE,
    JOB_FLAGS,
    JOB_FLOATS,
    JOB_INTEGERS,
    NUMBER,
    OWN,
    ROW_FLOATS,
    ROW_INTEGERS,
    ROWS,
    SETTINGS,
)
from lowbit.benchmark.results.result_file import ZERO_SHOT, Result

FOLDER = "folder"  # the column that says where a result file is, relative to the runs folder
FILE = (FOLDER, "size", "mtime_ns", "inode")
File = tuple[str, int, int, int]

_AT_ONCE = 1_000  # files: few enough that the garbage collector has little to look through
_MOST = 5_000  # settings, of a few kilobytes each, that are known again

_TYPES = dict.fromkeys((*FILE[1:], *JOB_INTEGERS, *ROW_INTEGERS), pa.int64())
_TYPES |= dict.fromkeys((*JOB_FLOATS, *ROW_FLOATS), pa.float64())
_TYPES |= dict.fromkeys((*JOB_FLAGS, ZERO_SHOT), pa.bool_())
_TYPES[ROWS] = pa.list_(pa.struct([(name, _TYPES.get(name, pa.string())) for name in NUMBER]))


def _schema(names: Sequence[str]) -> pa.Schema:
    return pa.schema([(name, _TYPES.get(name, pa.string())) for name in names])


COLUMNS = _schema((*FILE, *OWN, *BACKBONE, *SETTINGS, ROWS))
_SETTINGS, _BACKBONE, _NUMBER = map(_schema, (SETTINGS, BACKBONE, NUMBER))
_EACH = _schema((*FILE, *OWN)).append(pa.field("settings", pa.int32()))
_EACH = _EACH.append(pa.field("backbone", pa.int32()))


class RecordColumns:
    """Collects records, each with the file that it was read from."""

    def __init__(self) -> None:
        self._settings: list[tuple] = []
        self._backbones: dict[tuple, int] = {}  # the place of each
        self._known: dict[bytes, int] = {}  # the place of settings, by their key
        self._each: list[tuple] = []
        self._numbers: list[tuple] = []
        self._starts = [0]
        self._done: list[pa.Table] = []

    def add(self, file: File, result: Result) -> None:
        """Add the record of a result."""
        key = make_record.settings_key(result)
        settings = self._known.get(key)
        if settings is None:
            if len(self._known) > _MOST:
                self._known.clear()
            settings = self._known[key] = len(self._settings)
            self._settings.append(make_record.settings(result))
        backbone = make_record.backbone(result)
        place = self._backbones.setdefault(backbone, len(self._backbones))
        self._each.append((*file, *make_record.own(result), settings, place))
        self._numbers += make_record.numbers(result)
        self._starts.append(len(self._numbers))
        if len(self._each) == _AT_ONCE:
            self._convert()

    def table(self) -> pa.Table:
        """Return the records as a table of COLUMNS, in the order in which they were added."""
        if not self._each and not self._done:
            return pa.Table.from_batches([], COLUMNS)  # a conversion would import pandas
        self._convert()
        each = pa.concat_tables(self._done).combine_chunks()
        settings = _table(self._settings, _SETTINGS).take(each["settings"])
        backbones = map(make_record.shown, self._backbones)
        shared = _table([*backbones], _BACKBONE).take(each["backbone"])
        columns = {
            name: table[name] for table in (each, settings, shared) for name in table.column_names
        }
        return pa.table([columns[name] for name in COLUMNS.names], schema=COLUMNS)

    def _convert(self) -> None:
        numbers = pa.StructArray.from_arrays(
            [*_arrays(self._numbers, _NUMBER)], fields=list(_NUMBER)
        )
        starts = pa.array(self._starts, pa.int32())
        lists = pa.ListArray.from_arrays(starts, numbers, type=_TYPES[ROWS])
        table = _table(self._each, _EACH)
        self._done.append(table.append_column(COLUMNS.field(ROWS), lists))
        self._each, self._numbers, self._starts = [], [], [0]


def _table(rows: Sequence[tuple], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_arrays([*_arrays(rows, schema)], schema=schema)


def _arrays(rows: Sequence[tuple], schema: pa.Schema) -> Iterator[pa.Array]:
    """Yield columns: several times as fast as rows to a table."""
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    for column, field in zip(columns, schema, strict=True):
        yield pa.array(column, field.type)
