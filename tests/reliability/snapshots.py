"""What must be equal in a sweep that was attacked and in one that was not: everything but times."""

import json
import re
from pathlib import Path

from tests.benchmark.board_pages import Page

# When and how long, on what; how often a fake began.
_TIMES = ("seconds", "finished", "peak_memory_mb", "images_per_s", "attempts", "log")
# Logs, caches, and states before the last: which steps they are of depends on when a signal came.
_STATES = r"last\.\d+\.pth|model_\d+\.pth"
_PASSING = re.compile(rf"log\.txt|state\.txt|\.takeover|\.records\.parquet|{_STATES}")


def snapshot(runs: Path) -> dict[str, object]:
    """Return the content of every file of a runs folder, without times, by its path."""
    found: dict[str, object] = {}
    for path in sorted(runs.rglob("*")):
        if path.is_dir() or _PASSING.fullmatch(path.name) or path.parent.name == "tensorboard":
            continue
        name = str(path.relative_to(runs))
        if path.name == "index.html":
            found[name] = _timeless(Page(path).data)
        elif path.suffix == ".json":
            found[name] = _timeless(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            found[name] = [_timeless(json.loads(line)) for line in path.open()]
        else:
            found[name] = path.read_bytes()
    return found


def differences(found: dict[str, object], expected: dict[str, object]) -> list[str]:
    """Say which files are too many, lacking, or other than expected."""
    said = [f"{name} is lacking" for name in expected.keys() - found.keys()]
    said += [f"{name} is left over" for name in found.keys() - expected.keys()]
    common = expected.keys() & found.keys()
    return sorted(said + [f"{name} differs" for name in common if found[name] != expected[name]])


def _timeless(content: object) -> object:
    if isinstance(content, dict):
        return {key: _timeless(value) for key, value in content.items() if key not in _TIMES}
    return [_timeless(item) for item in content] if isinstance(content, list) else content
