"""setup.py declares what is imported, and nothing else; requirements.txt pins what it declares."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.test_imports import MODULES, imports

ROOT = Path(__file__).parents[1]
INDIRECT = {
    "itables": "the page embeds the DataTables that it carries",
    "onnxscript": "torch.onnx exports by it",
    "tensorboard": "Detectron2 writes its events by it",
    "iopath": "the versions that Detectron2 accepts",
}


def keyword(name: str) -> ast.expr:
    """What setup.py passes to `setup` under this name."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    (value,) = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == name
    ]
    return value


def by_name(lines: list[str]) -> dict[str, str]:
    return {normalized(re.match(r"[\w.-]+", line)[0]): line for line in lines}


def declared() -> dict[str, str]:
    """What setup.py requires, by normalized name."""
    return by_name(ast.literal_eval(keyword("install_requires")))


def extra(name: str) -> dict[str, str]:
    """What an extra of setup.py requires, by normalized name."""
    extras = keyword("extras_require")
    lines = dict(zip([ast.literal_eval(key) for key in extras.keys], extras.values, strict=True))
    if name == "detectron2":  # read from its file
        return by_name([(ROOT / "requirements-detectron2.txt").read_text()])
    return by_name(ast.literal_eval(lines[name]))


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> set[str]:
    """The distributions that any module of ours imports."""
    names = set().union(*imports().values()) - MODULES.keys() - {"lowbit"}
    found = packages_distributions()  # without those of extras that are not installed
    return {normalized(found.get(name, [name])[0]) for name in names - set(sys.stdlib_module_names)}


def test_what_is_imported_is_declared_and_the_other_way_round():
    extras = {
        name
        for each in ("detectron2", "ray", "deploy", "bench", "evidence")
        for name in extra(each)
    }
    assert imported() == (declared().keys() | extras) - INDIRECT.keys()


def test_what_is_declared_is_pinned():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = {normalized(line.partition("==")[0]) for line in lines if "==" in line}
    assert declared().keys() | extra("deploy").keys() <= pinned
