"""Bundles as large as a file of each kind may be, or larger than they look; all of harmless data."""

import io
import json
import struct
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lowbit.benchmark.submissions.archive import (
    MOST_BYTES,
    MOST_BYTES_OF_DETECTIONS,
    MOST_BYTES_OF_RESULTS,
)
from lowbit.benchmark.submissions.check_files import MOST_DETECTIONS
from lowbit.benchmark.submissions.manifest import MANIFEST
from lowbit.common.input_files.parquet_pages import Bounds
from tests.benchmark.bundles import Forger

RESULT, PREDICTIONS = "result.json", "predictions.parquet"
ALLOWED = {
    "directory": MOST_BYTES[MANIFEST],
    "manifest": MOST_BYTES[MANIFEST],
    "result": MOST_BYTES[RESULT],
    "results": MOST_BYTES_OF_RESULTS,
    "predictions": MOST_BYTES[PREDICTIONS],
    "detections": MOST_BYTES_OF_DETECTIONS,
}
"""Bytes that a file of a kind may have; of the results, all together."""


def _padded(unit: str, length: int, *, first: str, last: str) -> bytes:
    """Return a text that repeats a unit to a length."""
    count = (length - len(first) - len(last)) // len(unit.encode())
    return (first + unit * count).rstrip(",").encode() + last.encode()


# Content of JSON, to a length: in the first place what takes most memory for its bytes.
JSONS = {
    "values": lambda n: _padded('{"a":0},', n, first="[", last="0]"),
    "lists": lambda n: _padded("[],", n, first="[", last="]"),
    "depth": lambda n: b"[" * n,
    "text": lambda n: _padded("a", n - 8, first='["\U0001f600', last='"]'),
    "an end that is missing": lambda n: _padded('\\"', n, first='["', last=""),
    "space": lambda n: b" " * (n // 2) + b"}" + b" " * (n // 2 - 1),
    "digits": lambda n: b"1" * n,
}


def with_manifest(content: bytes, bundle: Path, out: Path) -> Path:
    """Write a bundle with another manifest."""
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(out, "w") as new:
        new.writestr(MANIFEST, content)
        for info in old.infolist():
            if info.filename != MANIFEST:
                new.writestr(info, old.read(info))
    return out


def many_names(count: int) -> bytes:
    """Return a manifest that lists files which are not there."""
    entry = {"name": "jane", "submitter": "Jane"}
    files = {f"jobs/{n:012x}/{RESULT}": {"bytes": 1, "sha256": "0" * 64} for n in range(count)}
    return json.dumps({"schema_version": 1, "entry": entry, "files": files}).encode()


def long_directory(out: Path, count: int) -> Path:
    """Write a ZIP file whose directory has empty files only."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, *([0] * 14))
    entry = entry[:28] + struct.pack("<H", 1) + entry[30:46] + b"x"
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, count * len(entry), 0, 0)
    out.write_bytes(entry * count + end)
    return out


def details(values: int) -> list:
    """Return details of that many values, as a JSON text counts them, which take most memory."""
    return [{f"{n:x}": 0} for n in range(values // 3)]


def table(splits, rows: int, precisions=("FP", "4w4a")) -> pa.Table:
    """Return predictions that are all 0."""
    return pa.table(
        {
            "split": splits,
            "id": pa.repeat(pa.scalar(0, pa.int64()), rows),
            **{name: pa.repeat(pa.scalar(0, pa.int16()), rows) for name in ("label", *precisions)},
        }
    )


def parquet(content: pa.Table, **options) -> bytes:
    out = io.BytesIO()
    metadata = {"dataset": "digits", "split_sha256": "0" * 64, "classes": ["a", "b"]}
    content = content.replace_schema_metadata({"lowbit-bench": json.dumps(metadata)})
    pq.write_table(content, out, compression="zstd", **options)
    return out.getvalue()


def coded(words: list[str], rows: int) -> pa.DictionaryArray:
    """Return a column of text by codes."""
    codes = pa.array(range(len(words)), pa.int32())
    zeros = pa.repeat(pa.scalar(0, pa.int32()), max(0, rows - len(words)))
    return pa.DictionaryArray.from_arrays(pa.concat_arrays([codes, zeros])[:rows], words)


def long_footer(length: int) -> bytes:
    """Return a Parquet file whose footer has as many columns in row groups as fit, of three bytes each."""
    per_group = 65_000
    column = b"\x26\x00\x00"  # file_offset 0
    columns = b"\x19\xfc" + _varint(per_group) + column * per_group
    group = columns + b"\x16\x00\x16\x00\x00"
    count = (length - 100) // len(group)
    schema = b"\x19\x1c" + b"\x48\x01s\x15\x00\x00"  # one element: a root without columns
    facts = b"\x15\x02" + schema + b"\x16\x00" + b"\x19" + bytes([count << 4 | 12]) + group * count
    facts += b"\x00"
    return b"PAR1" + facts + len(facts).to_bytes(4, "little") + b"PAR1"


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


PREDICTION_FILES = {
    "one long word, row by row": lambda: parquet(table(coded(["test" * 2**18], 10**6), 10**6)),
    "300,000 splits": lambda: parquet(table(coded([f"{n}" for n in range(300_000)], 10**6), 10**6)),
    "long words in plain": lambda: parquet(
        table(pa.repeat(pa.scalar("test" * 2**10), 10**5), 10**5), use_dictionary=False
    ),
    "as many rows as are allowed": lambda: parquet(table(coded(["test"], 10**6), 10**6)),
    "each row a split": lambda: parquet(
        table(pa.array([f"{n}" for n in range(10**6)]), 10**6), use_dictionary=False
    ),
    "more rows": lambda: parquet(table(coded(["test"], 10**8), 10**8, ())),
    "a footer of columns": lambda: long_footer(Bounds().footer),
    "no rows": lambda: parquet(table(coded(["test"], 0), 0)),
}


def many_detections(count: int = MOST_DETECTIONS) -> bytes:
    """Return as many detections as are allowed, spread over images and classes."""
    one = '{{"image_id":{},"category_id":{},"bbox":[{},0.125,10.5,9.5],"score":0.{}}}'
    parts = [one.format(1 + n % 6, 1 + n // 6 % 10, n % 50, n % 1000) for n in range(count)]
    return b"[" + ",\n".join(parts).encode() + b"]"


def forged(forger: Forger, name: str, content: bytes, out: Path) -> Path:
    """Write a bundle with another file of the job, which its result names."""
    forger.exchange(name, content)
    return forger.pack(out)
