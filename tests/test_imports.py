"""Imports flow one way, without a circle, and nothing of ours has a bare name."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("lowbit", "pretrain", "transfer", "detection", "benchmark", "tools")

_SUPPORT = {"common", "quant", "backbones", "data"}
ALLOWED = {
    "common": set(),
    "quant": {"common"},
    "backbones": {"common", "quant"},
    "data": {"common"},
    "pretrain": _SUPPORT,
    "transfer": _SUPPORT,
    "detection": _SUPPORT,
    "benchmark": {*_SUPPORT, "pretrain", "transfer", "detection"},
    "tools": {*_SUPPORT, "pretrain", "transfer", "detection", "benchmark"},
}
"""What a package may import beside itself."""


def modules() -> dict[str, Path]:
    """Every module of the product by its name."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name if folder == "lowbit" else f"lowbit.{name}"] = path
    return found


MODULES = modules()


def imported(path: Path) -> set[str]:
    """What a file imports, wherever in it and for types alone as well: our modules, others' top names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in MODULES else node.module)
    return {name if name in MODULES else name.split(".")[0] for name in names}


IMPORTS = {name: imported(path) for name, path in MODULES.items()}


def package(module: str) -> str:
    """The package a module of ours belongs to: `quant` of `lowbit.quant.layers`."""
    return (module.split(".") + ["lowbit"])[1]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which reaches every other (Tarjan's algorithm)."""
    index, low, on_stack, stack, found = {}, {}, set(), [], []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        on_stack.add(node)
        for other in graph[node]:
            if other not in graph:
                continue
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in on_stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
                on_stack.discard(group[-1])
            if len(group) > 1 or node in graph[node]:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return found


@pytest.mark.parametrize("name", ALLOWED)
def test_package_imports_only_what_stands_to_its_left(name):
    files = [module for module in MODULES if package(module) == name]
    assert files, f"{name} has no module"
    wrong = defaultdict(set)
    for module in files:
        for other in IMPORTS[module]:
            if other in MODULES and package(other) not in {*ALLOWED[name], name, "lowbit"}:
                wrong[module].add(other)
    assert wrong == {}


def test_nothing_of_ours_is_imported_by_a_bare_name():
    bare = {*FOLDERS, *ALLOWED} - {"lowbit"}
    assert {m: names & bare for m, names in IMPORTS.items() if names & bare} == {}


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
    rooms = {"detectron2": "lowbit.detection", "ray": "lowbit.benchmark.executors"}
    for library, room in rooms.items():
        users = [module for module, names in IMPORTS.items() if library in names]
        assert users and [m for m in users if not m.startswith((room, "lowbit.tools"))] == []


def test_quant_imports_torch_only():
    outside = set()
    for module, names in IMPORTS.items():
        if package(module) == "quant":
            outside |= {n for n in names if n not in MODULES} - set(sys.stdlib_module_names)
    assert outside == {"torch"}


def test_nothing_at_import_time_needs_detectron2_or_ray():
    packages = ", ".join(f"lowbit.{name}" for name in ALLOWED)
    code = (
        "import sys; sys.modules['detectron2'] = sys.modules['ray'] = None\n"
        f"import {packages}\n"
        "assert not any(m.startswith(('detectron2.', 'ray.')) for m in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
