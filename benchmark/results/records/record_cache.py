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
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lowbit.benchmark.results import recipe_hash, result_file
from lowbit.benchmark.results.records import make_record, read_records, record_columns
from lowbit.benchmark.results.records.read_records import look_up
from lowbit.benchmark.results.records.record_columns import COLUMNS, FILE, FOLDER, File
from lowbit.benchmark.results.verdicts import SUBMISSIONS
from lowbit.common.atomic_file import atomic
from lowbit.common.input_files.regular_file import NotAFileError, check_regular

CACHE = ".records.parquet"

_logger = logging.getLogger(__name__)


def load_records(runs_dir: Path) -> pa.Table:
    """Return the record of every trusted result in a runs folder, submissions too, by folder."""
    runs_dir = Path(runs_dir)
    kept = _read(runs_dir / CACHE)
    rows = {file: row for row, file in enumerate(_keys(kept))}
    known = {folder for folder, *_ in rows}
    new, same = [], []
    for folder in _folders(runs_dir):
        # A file that is not known is looked at when it is read, by whichever process does that.
        row = rows.get(look_up(runs_dir, folder)) if folder in known else None
        if row is None:
            new.append(folder)
        else:
            same.append(row)
    fresh = read_records.read_records(runs_dir, new)
    if len(same) == len(kept) and not len(fresh):
        return kept
    table = pa.concat_tables([kept.take(pa.array(same, pa.int64())), fresh])  # imports pandas
    table = table.sort_by(FOLDER).combine_chunks()
    _write(runs_dir / CACHE, table)
    return table


def _folders(runs_dir: Path) -> Iterator[str]:
    """Yield the folder of every job, relative to the runs folder."""
    yield from _names(runs_dir)
    for name in _names(runs_dir / SUBMISSIONS):
        for job in _names(runs_dir / SUBMISSIONS / name):
            yield f"{SUBMISSIONS}/{name}/{job}"


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.isprintable())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _keys(table: pa.Table) -> Iterable[File]:
    return zip(*table.select(FILE).to_pydict().values(), strict=True)


def _read(path: Path) -> pa.Table:
    """Return the cache; empty if it is missing, damaged, or made by other code."""
    try:
        check_regular(path)
        with pq.ParquetFile(path) as file:  # read_table would import pandas
            table = file.read()
    except (OSError, NotAFileError, pa.ArrowException):
        return COLUMNS.empty_table()
    made_by = (table.schema.metadata or {}).get(b"made_by")
    return table.replace_schema_metadata() if made_by == _code() else COLUMNS.empty_table()


def _write(path: Path, table: pa.Table) -> None:
    try:
        with atomic(path) as file:
            marked = table.replace_schema_metadata({"made_by": _code()})
            pq.write_table(marked, file, compression="zstd")
    except OSError as error:
        _logger.info("%s was not written (%s): results load as slowly next time", path, error)


def _code() -> bytes:
    """Return a hash of the code that decides what a record is."""
    modules = (result_file, recipe_hash, make_record, read_records, record_columns)
    files = [*(module.__file__ for module in modules), __file__]
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest().encode()
