"""Read result files into records; where there are many, in two processes.

The second is a new Python that imports neither torch nor the caller's script, so it may be started from
anywhere: a script without a main guard, a daemon, a process with threads. Both take what to read next from
one pipe until it is empty:

    folders ──> temporary file ──────────────────────────┐
    numbers of steps ──> pipe ──> this process and the second one ──> temporary file of its records

The second one leaves aside each file with which anything is wrong. This one reads those, and all that
did not come back for whatever reason, so messages are the same and in the same order.
"""

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import pyarrow as pa
from pydantic import ValidationError

from lowbit.benchmark.results.records.record_columns import (
    COLUMNS,
    FOLDER,
    File,
    RecordColumns,
)
from lowbit.benchmark.results.result_file import MOST_BYTES, RESULT, Result, belongs, read_result
from lowbit.common.child_python import import_variables
from lowbit.common.input_files.regular_file import read_seen

_MANY = 20_000  # files that are worth a second process, which starts in a third of a second
_STEP, _STEPS = 250, 500  # files of a step at least, and steps at most: a pipe holds their numbers
_TOKEN = 4  # bytes of a number there
_PATIENCE = 60  # s for the second process to end its last step


def read_records(runs_dir: Path, folders: Sequence[str]) -> pa.Table:
    """Return the records of the result files in folders, in any order.

    A folder without a result file has no record, nor has one whose file holds no result.
    """
    columns, theirs = RecordColumns(), []
    if len(folders) < _MANY or not _may_start_another():
        left = _read(folders, runs_dir, columns)
    else:
        left, theirs = _read_in_two(folders, runs_dir, columns)
    for folder in sorted(left):
        if (file := look_up(runs_dir, folder)) and (result := read_result(runs_dir / folder)):
            columns.add(file, result)
    return pa.concat_tables([columns.table(), *theirs])


def look_up(runs_dir: Path, folder: str) -> File | None:
    """Return which file is the result in a folder; None: it is not that of a job, or of one that has not ended."""
    try:
        found = os.stat(f"{runs_dir}/{folder}/{RESULT}")
    except OSError:
        return None
    length = found.st_size if stat.S_ISREG(found.st_mode) else 0  # no pipe is opened
    return folder, length, found.st_mtime_ns, found.st_ino


def _read(folders: Sequence[str], runs_dir: Path, columns: RecordColumns) -> list[str]:
    """Add the records of folders; return those whose file `read_result` must look at."""
    left = []
    for folder in folders:
        if (file := look_up(runs_dir, folder)) is None:
            continue
        if (result := parse(runs_dir, file)) is not None:
            columns.add(file, result)
        else:
            left.append(folder)
    return left


def parse(runs_dir: Path, file: File) -> Result | None:
    """Return the result in a file in which nothing is unusual, else None."""
    folder, length, *_ = file
    if not 0 < length <= MOST_BYTES:
        return None
    text = read_seen(f"{runs_dir}/{folder}/{RESULT}", length)
    try:
        result = Result.model_validate_json(text) if text else None
    except ValidationError:
        return None
    return result if result and (result.job_id == folder or belongs(result, folder)) else None


def _read_in_two(
    folders: Sequence[str], runs_dir: Path, columns: RecordColumns
) -> tuple[list[str], list[pa.Table]]:
    """Read folders as `_read` does, with a second process; return also the records that it found."""
    steps = range(0, len(folders), max(_STEP, -(-len(folders) // _STEPS)))
    with contextlib.ExitStack() as stack:
        try:
            numbers = stack.enter_context(_pipe(range(len(steps))))
            given, found = (stack.enter_context(TemporaryFile()) for _ in range(2))
            _write(given, pa.table([pa.array(folders, pa.string())], [FOLDER]))
            process = _start(runs_dir, steps.step, numbers, given, found)
        except OSError:  # no disk space, handles or memory for it
            return _read(folders, runs_dir, columns), []
        stack.callback(process.wait)
        stack.callback(process.kill)
        left, rest = [], set(steps)
        for number in _taken(numbers):
            rest.remove(at := steps[number])
            left += _read(folders[at : at + steps.step], runs_dir, columns)
        table = _delivered(process, found) if rest else COLUMNS.empty_table()
    known = set(table[FOLDER].to_pylist())
    left += [f for at in rest for f in folders[at : at + steps.step] if f not in known]
    return left, [table]


def _may_start_another() -> bool:
    name = os.path.basename(sys.executable or "")  # a program that embeds Python has its own
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return name.startswith("python") and cores > 1


def _start(
    runs_dir: Path, step: int, numbers: BinaryIO, given: BinaryIO, found: BinaryIO
) -> subprocess.Popen:
    handles = (given.fileno(), found.fileno())
    return subprocess.Popen(
        [sys.executable, "-m", __name__, str(runs_dir), str(step), *map(str, handles)],
        env={**os.environ, **import_variables()},
        stdin=numbers,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=handles,
    )


def _delivered(process: subprocess.Popen, found: BinaryIO) -> pa.Table:
    """Return the records that the second process found; none if it failed."""
    with contextlib.suppress(OSError, pa.ArrowException, subprocess.TimeoutExpired):
        if process.wait(_PATIENCE) == 0:
            found.seek(0)
            table = pa.ipc.open_stream(found).read_all()
            if table.schema == COLUMNS:
                return table
    return COLUMNS.empty_table()


@contextlib.contextmanager
def _pipe(numbers: Sequence[int]) -> Iterator[BinaryIO]:
    """Open a pipe that holds numbers."""
    source, sink = os.pipe()
    with open(source, "rb", buffering=0) as pipe:
        with open(sink, "wb", buffering=0) as end:
            end.write(b"".join(number.to_bytes(_TOKEN) for number in numbers))
        yield pipe


def _taken(numbers: BinaryIO) -> Iterator[int]:
    """Take numbers out of a pipe until there are none."""
    while token := numbers.read(_TOKEN):
        yield int.from_bytes(token)


def _write(file: BinaryIO, table: pa.Table) -> None:
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    file.flush()
    file.seek(0)


def _main(runs_dir: str, step: str, given: str, found: str) -> None:
    """Be the second process."""
    with open(int(given), "rb") as file:
        folders = pa.ipc.open_stream(file).read_all()[FOLDER].to_pylist()
    columns = RecordColumns()
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as numbers:
        for number in _taken(numbers):
            at = number * int(step)
            _read(folders[at : at + int(step)], Path(runs_dir), columns)
    with open(int(found), "wb") as file:
        _write(file, columns.table())


if __name__ == "__main__":
    _main(*sys.argv[1:])
