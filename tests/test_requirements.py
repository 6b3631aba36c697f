"""setup.py declares what is imported, and nothing else; requirements.txt pins what it declares."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.test_imports import IMPORTS, MODULES

ROOT = Path(__file__).parents[1]
EXTRAS = {"detectron2", "ray", "brevitas"}  # imported where they are used, with a hint
INDIRECT = {
    "itables": "the page embeds the DataTables that it carries",
    "pyarrow": "pandas reads and writes Parquet by it",
    "tensorboard": "Detectron2 writes its events by it",
    "iopath": "the versions that Detectron2 accepts",
}


def declared() -> dict[str, str]:
    """What setup.py requires, by normalized name."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    (requires,) = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "install_requires"
    ]
    lines = ast.literal_eval(requires)
    return {normalized(re.match(r"[\w.-]+", line)[0]): line for line in lines}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> set[str]:
    """The distributions that any module of ours imports."""
    names = set().union(*IMPORTS.values()) - MODULES.keys() - EXTRAS - {"lowbit"}
    found = packages_distributions()
    return {normalized(found[name][0]) for name in names - set(sys.stdlib_module_names)}


def test_what_is_imported_is_declared_and_the_other_way_round():
    assert imported() - declared().keys() == set()
    assert declared().keys() - imported() - INDIRECT.keys() == set()


def test_what_is_declared_is_pinned():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = {normalized(line.partition("==")[0]) for line in lines if "==" in line}
    assert declared().keys() - pinned == set()
