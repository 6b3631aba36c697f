"""Cache the records of a runs folder in columns, so that each result file is parsed only once.

    runs/.records.parquet     a row for each trusted result file: which file it was, and its record

Which file: its folder, size, modification time and inode, so one that was replaced, edited or copied is
read again. The cache holds nothing that is not in the result files. Deleted, damaged or made by other
code, it is made again; where it cannot be written, all goes on without.
"""

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lowbit.benchmark.results import recipe_hash, records, result_file
from lowbit.benchmark.results.result_file import RESULT, ZERO_SHOT, read_result
from lowbit.benchmark.results.verdicts import SUBMISSIONS
from lowbit.common.atomic_file import atomic
from lowbit.common.input_files.regular_file import NotAFileError, check_regular

CACHE = ".records.parquet"
FOLDER = "folder"  # the column that says where a result file is, relative to the runs folder

_AT_ONCE = 1_000  # files: few enough that the garbage collector has little to look through

_FILE = (FOLDER, "size", "mtime_ns", "inode")
_File = tuple[str, int, int, int]

_ROW = pa.struct(
    [
        *((name, pa.string()) for name in records.ROW_TEXTS),
        *((name, pa.float64()) for name in records.ROW_FLOATS),
        *((name, pa.int64()) for name in records.ROW_INTEGERS),
        (ZERO_SHOT, pa.bool_()),
    ]
)
_COLUMNS = pa.schema(
    [
        (FOLDER, pa.string()),
        *((name, pa.int64()) for name in _FILE[1:]),
        *((name, pa.string()) for name in records.JOB_TEXTS),
        *((name, pa.int64()) for name in records.JOB_INTEGERS),
        *((name, pa.float64()) for name in records.JOB_FLOATS),
        *((name, pa.bool_()) for name in records.JOB_FLAGS),
        (records.ROWS, pa.list_(_ROW)),
    ]
)
_logger = logging.getLogger(__name__)


def load_records(runs_dir: Path) -> pa.Table:
    """Return the record of every trusted result in a runs folder, submissions too, by folder."""
    runs_dir = Path(runs_dir)
    found = sorted(_files(runs_dir))
    kept = _read(runs_dir / CACHE)
    rows = {file: row for row, file in enumerate(zip(*_columns(kept), strict=True))}
    if len(found) == len(kept) and all(file in rows for file in found):
        return kept
    known = pa.array((rows[file] for file in found if file in rows), pa.int64())  # imports pandas
    new = [file for file in found if file not in rows]
    fresh = (_parse(runs_dir, new[at : at + _AT_ONCE]) for at in range(0, len(new), _AT_ONCE))
    table = pa.concat_tables([kept.take(known), *fresh]).sort_by(FOLDER).combine_chunks()
    if found:
        _write(runs_dir / CACHE, table)
    return table


def _files(runs_dir: Path) -> Iterator[_File]:
    """Yield every result file with its key."""
    yield from _jobs(runs_dir, "")
    for name in _names(runs_dir / SUBMISSIONS):
        yield from _jobs(runs_dir, f"{SUBMISSIONS}/{name}/")


def _jobs(runs_dir: Path, prefix: str) -> Iterator[_File]:
    for name in _names(runs_dir / prefix):
        folder = prefix + name
        try:
            stat = os.stat(f"{runs_dir}/{folder}/{RESULT}")
        except OSError:  # not the folder of a job, or of one that has not finished
            continue
        yield folder, stat.st_size, stat.st_mtime_ns, stat.st_ino


def _names(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if name.isprintable()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _columns(table: pa.Table) -> Iterable[list]:
    return table.select(_FILE).to_pydict().values()


def _parse(runs_dir: Path, files: Iterable[_File]) -> pa.Table:
    """Return the records of files; those that hold no result have none."""
    parsed = ((file, read_result(f"{runs_dir}/{file[0]}")) for file in files)
    found = [(file, records.make_record(result)) for file, result in parsed if result is not None]
    columns = [[file[place] for file, _ in found] for place in range(len(_FILE))]
    of_job = _COLUMNS.names[len(_FILE) : -1]
    columns += ([record[name] for _, record in found] for name in of_job)
    rows = [record[records.ROWS] for _, record in found]
    fields = zip(_COLUMNS, columns, strict=False)
    arrays = [pa.array(column, field.type) for field, column in fields]
    return pa.Table.from_arrays([*arrays, _lists(rows)], schema=_COLUMNS)


def _lists(rows: list[list[dict]]) -> pa.ListArray:
    """Return the rows of each job, column by column: several times as fast as a row at a time."""
    flat = [row for of_job in rows for row in of_job]
    numbers = [pa.array([row.get(field.name) for row in flat], field.type) for field in _ROW]
    starts = [0, *accumulate(map(len, rows))]
    struct = pa.StructArray.from_arrays(numbers, fields=list(_ROW))
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), struct, type=pa.list_(_ROW))


def _read(path: Path) -> pa.Table:
    """Return the cache; empty if it is missing, damaged, or made by other code."""
    try:
        check_regular(path)
        with pq.ParquetFile(path) as file:  # read_table would import pandas
            table = file.read()
    except (OSError, NotAFileError, pa.ArrowException):
        return _COLUMNS.empty_table()
    made_by = (table.schema.metadata or {}).get(b"made_by")
    return table.replace_schema_metadata() if made_by == _code() else _COLUMNS.empty_table()


def _write(path: Path, table: pa.Table) -> None:
    try:
        with atomic(path) as file:
            marked = table.replace_schema_metadata({"made_by": _code()})
            pq.write_table(marked, file, compression="zstd")
    except OSError as error:
        _logger.info("%s was not written (%s): results load as slowly next time", path, error)


def _code() -> bytes:
    """Return a hash of the code that decides what a record is."""
    files = (
        result_file.__file__,
        records.__file__,
        recipe_hash.__file__,
        __file__,
    )
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest().encode()
