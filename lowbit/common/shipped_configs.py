"""Shipped recipes and suites: `configs/` in a checkout, `lowbit/configs/` in a wheel."""

from functools import cache
from pathlib import Path

import lowbit
from lowbit.common.input_files.file_names import expanded
from lowbit.common.suggest import did_you_mean

_PREFIX = "configs/"


def find_config(name: str | Path, folder: str) -> Path:
    """Return the file at that path if it exists, else the shipped file of that name.

    Args:
        name: a path such as `mine.yaml`, or a shipped file such as
            `configs/suites/demo.yaml`, `demo.yaml` or `demo`.
        folder: of `configs/`, where a bare name is looked up: `suites`, `transfer`, ...

    Raises:
        FileNotFoundError: neither exists.
        ValueError: the name is none of a file.
    """
    path = expanded(name)
    if path.is_file():
        return path
    if found := shipped_config(str(name)) or shipped_config(f"{_PREFIX}{folder}/{name}"):
        return found
    known = [k.removeprefix(f"{folder}/") for k in _shipped() if k.startswith(f"{folder}/")]
    names = [name for name in known if not name.startswith("_")]
    nearby = [file.name for file in path.parent.glob("*.yaml")]
    near = did_you_mean(path.name, nearby) or did_you_mean(path.stem, names)
    raise FileNotFoundError(
        f"There is no file {name}, and lowbit-bench ships none of that name; nothing was run."
        f"{near} Give a path, or a name from {_PREFIX}{folder}: {', '.join(names)}."
    )


def shipped_config(name: str) -> Path | None:
    """Return the shipped file `configs/FOLDER/NAME[.yaml]`, or None.

    Files outside the shipped configs are never returned.
    """
    if not name.startswith(_PREFIX):
        return None
    return _shipped().get(name.removeprefix(_PREFIX).removesuffix(".yaml"))


def shipped_name(path: Path) -> str | None:
    """Return the name, `configs/FOLDER/NAME.yaml`, of a shipped file."""
    if not is_shipped(path):
        return None
    return f"{_PREFIX}{path.resolve().relative_to(_root().resolve()).as_posix()}"


def is_shipped(path: Path) -> bool:
    """Whether a file or folder is shipped with the package."""
    return path.resolve().is_relative_to(_root().resolve())


@cache
def _shipped() -> dict[str, Path]:
    """Every shipped file by `FOLDER/NAME`."""
    files = sorted(_root().rglob("*.yaml"))
    return {file.relative_to(_root()).as_posix().removesuffix(".yaml"): file for file in files}


@cache
def _root() -> Path:
    return next(p for entry in lowbit.__path__ if (p := Path(entry, "configs")).is_dir())
