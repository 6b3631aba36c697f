"""Imports flow one way: quant <- backbones <- {pretrain, transfer, detection} <- benchmark <- tools."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "runtime": set(),
    "quant": set(),
    "data": {"runtime"},
    "backbones": {"runtime", "quant"},
    "pretrain": {"runtime", "quant", "backbones", "data"},
    "transfer": {"runtime", "quant", "backbones", "data"},
    "detection": {"runtime", "quant", "backbones", "data"},
    "benchmark": {"runtime", "quant", "backbones", "data", "pretrain", "transfer", "detection"},
}


def imported(path: Path) -> set[str]:
    """Top-level packages a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_package_imports_only_what_stands_to_its_left(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files, f"{package} has no Python file"
    forbidden = (set(ALLOWED) | {"tools"}) - ALLOWED[package] - {package}
    wrong = {str(f.relative_to(ROOT)): imported(f) & forbidden for f in files}
    assert {f: names for f, names in wrong.items() if names} == {}


@pytest.mark.parametrize("tool", ["run_all", "pretrain", "transfer", "leaderboard", "check"])
def test_help_does_not_wait_for_torch(tool):
    code = (
        "import runpy, sys; sys.argv[1:] = ['--help']\n"
        f"try: runpy.run_path({str(ROOT / 'tools' / f'{tool}.py')!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_detectron2_and_ray_stay_in_their_rooms():
    rooms = {"detectron2": ("detection",), "ray": ("benchmark/executors",)}
    for library, allowed in rooms.items():
        for package in ALLOWED:
            for file in (ROOT / package).rglob("*.py"):
                where = file.relative_to(ROOT).as_posix()
                if library in imported(file):
                    assert where.startswith(allowed), f"{where} imports {library}"


def test_quant_imports_torch_only():
    outside = set()
    for file in (ROOT / "quant").rglob("*.py"):
        outside |= imported(file) - set(sys.stdlib_module_names) - {"quant"}
    assert outside == {"torch"}


def test_nothing_at_import_time_needs_detectron2_or_ray():
    code = (
        "import sys; sys.modules['detectron2'] = sys.modules['ray'] = None\n"
        f"import {', '.join(ALLOWED)}\n"
        "assert not any(m.startswith(('detectron2.', 'ray.')) for m in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
