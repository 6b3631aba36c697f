"""Every module can be imported, by its own name, and the examples in its docstrings hold."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDS_DETECTRON2 = re.compile(r"^(from|import) detectron2\b", re.MULTILINE)


def _modules():
    modules = []
    for folder in ("lowbit", "pretrain", "transfer", "detection", "benchmark", "tools"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts if folder == "lowbit" else ("lowbit", *parts))
            needs = NEEDS_DETECTRON2.search(path.read_text())
            marks = [pytest.mark.detectron2] if needs else []
            modules.append(pytest.param(name.removesuffix(".__init__"), marks=marks))
    return modules


@pytest.mark.parametrize("name", _modules())
def test_examples_hold(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0
