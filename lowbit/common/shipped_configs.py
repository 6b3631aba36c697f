"""The recipes and suites that come with the package: `configs/` of a checkout, `lowbit/configs/` of a wheel."""

from functools import cache
from pathlib import Path

import lowbit
from lowbit.common.suggest import did_you_mean

_PREFIX = "configs/"


def find_config(name: str | Path, folder: str) -> Path:
    """Return a file of that name, else the shipped one.

    Args:
        name: a path, as `mine.yaml`; or what comes with the package, as
            `configs/suites/demo.yaml`, `demo.yaml` or `demo`.
        folder: of `configs/`, where a bare name is looked up: `suites`, `transfer`, ...

    Raises:
        FileNotFoundError: there is neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if found := shipped_config(str(name)) or shipped_config(f"{_PREFIX}{folder}/{name}"):
        return found
    known = [k.removeprefix(f"{folder}/") for k in _shipped() if k.startswith(f"{folder}/")]
    names = [name for name in known if not name.startswith("_")]
    nearby = [file.name for file in path.parent.glob("*.yaml")]
    near = did_you_mean(path.name, nearby) or did_you_mean(path.stem, names)
    raise FileNotFoundError(
        f"There is no file {name}, and none of that name comes with lowbit-bench; nothing was run."
        f"{near} Give a path, or a name out of {_PREFIX}{folder}: {', '.join(names)}."
    )


def shipped_config(name: str) -> Path | None:
    """Return the file that the package has under `configs/FOLDER/NAME[.yaml]`; None: it has none.

    No other file is ever returned, whatever the name.
    """
    if not name.startswith(_PREFIX):
        return None
    return _shipped().get(name.removeprefix(_PREFIX).removesuffix(".yaml"))


def shipped_name(path: Path) -> str | None:
    """Return the name, `configs/FOLDER/NAME.yaml`, of a file that comes with the package."""
    if not is_shipped(path):
        return None
    return f"{_PREFIX}{path.resolve().relative_to(_root().resolve()).as_posix()}"


def is_shipped(path: Path) -> bool:
    """Whether a file or folder is the package's own."""
    return path.resolve().is_relative_to(_root().resolve())


@cache
def _shipped() -> dict[str, Path]:
    """Every shipped file by `FOLDER/NAME`."""
    files = sorted(_root().rglob("*.yaml"))
    return {file.relative_to(_root()).as_posix().removesuffix(".yaml"): file for file in files}


@cache
def _root() -> Path:
    return next(p for entry in lowbit.__path__ if (p := Path(entry, "configs")).is_dir())
