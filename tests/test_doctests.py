"""Every module can be imported under its one name, and the examples in it say what happens.

Not pytest's own collection of doctests: by a file's place it would import detection/recipe.py as
`detection.recipe`, a second time beside `lowbit.detection.recipe`.
"""

import ctypes
import doctest
import importlib
import importlib.util
from unittest.mock import Mock

import pytest

from tests.test_imports import MODULES, imports

SERVER = "lowbit.benchmark.executors.job_server"  # would put all memory here into huge pages
EXAMPLES = [name for name, path in MODULES.items() if ">>> " in path.read_text()]


def needs_detectron2(name: str) -> bool:
    """Whether importing a module imports Detectron2, or could: imports in functions count too."""
    if name.startswith("lowbit.detection.with_detectron2"):
        return True
    return "detectron2" in imports()[name]


@pytest.mark.parametrize("name", MODULES)
def test_module_can_be_imported(name, monkeypatch):
    if name == SERVER:
        monkeypatch.setattr(ctypes, "CDLL", Mock())
    if needs_detectron2(name) and importlib.util.find_spec("detectron2") is None:
        pytest.skip("needs Detectron2")
    module, found = importlib.import_module(name), {}
    exec(f"import {name} as found", found)  # goes by attributes, which a function may hide
    assert found["found"] is module


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name):
    if needs_detectron2(name) and importlib.util.find_spec("detectron2") is None:
        pytest.skip("needs Detectron2")
    said = []
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(importlib.import_module(name)):
        runner.run(example, out=said.append)
    assert runner.failures == 0, "".join(said)
    assert runner.tries > 0
