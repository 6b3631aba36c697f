"""Generate docs/results.md, the layout of result files.

python -m lowbit.benchmark.results.document_schema > docs/results.md
"""

import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from lowbit.benchmark.results.result_file import (
    ADAPTIVE,
    BIT_OPERATIONS,
    COLUMNS,
    DEVICE,
    HIGH,
    INTERVAL,
    LOW,
    MACHINE,
    POLICY_ON_BOARD,
    PRETRAIN_SEED,
    PRETRAINING,
    ROUNDING,
    SCHEMA_VERSION,
    SECONDS,
    STDERR,
    TRAINING,
    WARNING,
    WEIGHT_BYTES,
    ZERO_SHOT,
    Result,
)
from lowbit.benchmark.results.verdicts import Verdict


def _columns() -> str:
    columns = _listed(COLUMNS)
    text = (
        f"The columns of the frame are {columns}; of results also how a detector or a low-bit network "
        f"was trained (`{TRAINING}`), error and 95 % interval over test images (`{STDERR}`, `{LOW}`, "
        f"`{HIGH}`, how it was found, `{INTERVAL}`, and why it may be too narrow, `{WARNING}`), the cost of the backbone (`{WEIGHT_BYTES}`, `{BIT_OPERATIONS}`), the share of "
        f"predictions in % that rounding alone decides (`{ROUNDING}`), whether the "
        f"precision is none it was trained at (`{ZERO_SHOT}`), whether only rows of one policy are ranked "
        f"together (`{POLICY_ON_BOARD}`), the name that a checkpoint shares with other pretrainings of its "
        f"method and its seed (`{PRETRAINING}`, `{PRETRAIN_SEED}`), of adaptive bit-widths {_listed(ADAPTIVE)} and, of deployed "
        f"networks, what they were measured on beside the runtime, which is the `engine`: {_listed(MACHINE)}; "
        f"and how long the whole job took on what (`{SECONDS}`, `{DEVICE}`)."
    )
    return textwrap.fill(text, 105)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


_INTRODUCTION = f"""\
# Result files

Every job that ends leaves one file, `runs/<job id>/result.json`: the recipe, with every default written
out; its inputs, by content hash; and the numbers, or why there are none. The board, its CSV and the
frame below are computed from these files alone; if deleted, they can be rebuilt byte for byte.

A job that runs by itself (`lowbit-bench pretrain`, `transfer`, `detect`) leaves the same file in its
`--output-dir`, with the id that the job has in a suite. So `lowbit-bench leaderboard rescore output/linear`
works, and `build`, `compare` and `bundle` work on `output`, the folder of several. A Detectron2 configuration
leaves a result where a recipe names it as its `config`.

- A file is written atomically: under a temporary name, synced, renamed. A reader never sees a partial file.
- A file that does not parse, is in the folder of another job's id, or has an unknown field is reported and ignored;
  the job runs again with its suite.
- The layout is version {SCHEMA_VERSION}. Files of version 2, which say neither which checkpoints are pretrainings of one
  method nor how an interval was found, are read too: their numbers stay on the board with their own intervals, which
  `rescore` does not compute again. A file of another version is not read.

```python
from pathlib import Path
from lowbit.benchmark.results.result_file import read_result
from lowbit.benchmark.results.frame import load_frame

result = read_result(Path("runs/demo/0a1b2c3d4e5f"))  # one job, or None
frame = load_frame(Path("runs/demo"))  # every measurement of every job, a row each
```

`load_frame` caches what it read in `runs/.records.parquet` and reads a result file again only if its
name, size, time or inode changed: 100,000 files load in about a second. The cache can be deleted; all
files are then read again, which takes three times as long ([performance.md](performance.md#reading-results)).
From 20,000 new files on, a second process helps with them for that time.

{_columns()}
"""
_VERDICT = """\
## Results of others

`lowbit-bench leaderboard add` stores a submission in `runs/submissions/<name>/`, laid out like a runs
folder, with a `verdict.json`. Jobs without a verdict are not read; if a job also ran here, the numbers
measured here are shown. Verified and self-reported numbers are separate rows, never averaged with
others, and self-reported ones have no rank.
"""
_NAMES = {"string": "text", "boolean": "true or false", "null": "null"}


def page() -> str:
    """Return docs/results.md."""
    parts = [
        _INTRODUCTION,
        "## Fields\n",
        *_models(Result),
        _VERDICT,
        *_models(Verdict),
    ]
    return "\n".join(parts)


def _models(model: type[BaseModel]) -> Iterator[str]:
    """Yield a section for a model and each nested model."""
    schema = model.model_json_schema()
    for name, found in {model.__name__: schema, **schema.get("$defs", {})}.items():
        rows = [_row(*field, found["required"]) for field in found["properties"].items()]
        table = "\n".join(["| field | holds | meaning |", "| --- | --- | --- |", *rows])
        yield f"### {name}\n\n{found['description']}\n\n{table}\n"


def _row(name: str, field: Mapping[str, Any], required: list[str]) -> str:
    optional = "" if name in required else "; may be absent"
    return f"| `{name}` | {_holds(field)}{optional} | {field['description']} |"


def _holds(field: Mapping[str, Any]) -> str:
    """Describe the type of a field of a JSON schema."""
    if "anyOf" in field:
        return " or ".join(_holds(choice) for choice in field["anyOf"])
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in field or "enum" in field:
        return " or ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"list of {_holds(field['items'])}"
    if field.get("type") == "object":
        values = field["additionalProperties"]
        return f"{_holds(values) if isinstance(values, dict) else 'anything'} by name"
    least = f" ≥ {field['minimum']:g}" if "minimum" in field else ""
    return _NAMES.get(field["type"], field["type"]) + least


if __name__ == "__main__":
    sys.stdout.write(page())
