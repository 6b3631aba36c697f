"""Imports flow one way, without a circle; folders and files keep to their size and their names."""

import ast
import subprocess
import sys
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("lowbit", "pretrain", "transfer", "detection", "deploy", "benchmark", "tools")

_SUPPORT = {"common", "quant", "backbones", "data", "training", "export"}
_STAGES = {"pretrain", "transfer", "detection", "deploy"}
ALLOWED = {
    "common": set(),
    "quant": {"common"},
    "backbones": {"common", "quant"},
    "data": {"common"},
    "training": {"common", "quant", "backbones", "data"},
    "export": {"common", "quant", "backbones"},
    "pretrain": _SUPPORT,
    "transfer": _SUPPORT,
    "detection": _SUPPORT,
    "deploy": {*_SUPPORT, "transfer", "detection"},
    "benchmark": {*_SUPPORT, *_STAGES},
    "tools": {*_SUPPORT, *_STAGES, "benchmark"},
}
"""What a package may import beside itself."""

BENCHMARK = (
    {"recipes"},
    {"published"},
    {"planning"},
    {"results"},
    {"scheduling", "statistics", "submissions"},
    {"claims"},
    {"executors", "leaderboard", "monitoring", "checkpoint_check"},
    {"cli"},
)
"""The folders of benchmark/; each may import those of the lines above it."""

SMALL = {
    "lowbit": "the root",
    "lowbit/backbones": "the face, over networks/ and checkpoints/",
    "lowbit/data": "the face, over image_sets/ and views/",
    "pretrain/analyses": "a file a figure",
    "transfer": "the face and the stage, over the folders of their parts",
    "detection/analyses": "a file a figure",
    "tools/import_root/lowbit": "the root as scripts see it",
    "benchmark": "the face",
    "benchmark/checkpoint_check": "one question",
}
"""Folders of fewer than four files, and why."""

SHARED_NAMES = {
    "base": "what every class of the folder's kind is",
    "catalog": "data sets by name",
    "compute_cost": "the work of a recipe, and what it is measured in",
    "engine": "two detection engines, one contract",
    "knn": "nearest neighbours: a measure while pretraining, a protocol",
    "recipe": "what a stage is told",
    "recipe_fields": "its fields, before they are checked",
    "registry": "things by name",
    "reproduction": "paper against ours, and its section of the page",
    "rescore": "score again what a job kept",
    "stage": "one job from recipe to result",
    "trainer": "a training loop",
}
"""Names that files of several folders may have, and the one meaning of each."""

NAMED_AFTER_OTHERS = {"tools", "tools/benchmarks", "benchmark/cli", "benchmark/cli/single_jobs"}
"""Folders with a file for each command, or for each part that is timed, under that one's name."""


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


@cache  # not at import: every process that collects the tests would parse all modules
def imports() -> dict[str, set[str]]:
    """What each module of ours imports."""
    return {name: imported(path) for name, path in MODULES.items()}


def package(module: str) -> str:
    """The package a module of ours belongs to: `quant` of `lowbit.quant.layers`."""
    return (module.split(".") + ["lowbit"])[1]


def folder(path: Path) -> str:
    """The folder of a file, from the checkout's root: `lowbit/quant`."""
    return path.parent.relative_to(ROOT).as_posix()


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
def test_a_package_imports_only_those_before_it(name):
    files = [module for module in MODULES if package(module) == name]
    assert files, f"{name} has no module"
    wrong = defaultdict(set)
    for module in files:
        for other in imports()[module]:
            if other in MODULES and package(other) not in {*ALLOWED[name], name, "lowbit"}:
                wrong[module].add(other)
    assert wrong == {}


def test_a_folder_of_the_benchmark_imports_only_those_before_it():
    floors = {folder: floor for floor, folders in enumerate(BENCHMARK) for folder in folders}
    inside = {module: module.split(".")[2] for module in MODULES if module.count(".") >= 2}
    inside = {m: folder for m, folder in inside.items() if package(m) == "benchmark"}
    assert set(inside.values()) <= set(floors)
    wrong = {}
    for module, folder in inside.items():
        others = {o for o in imports()[module] if o in inside and inside[o] != folder}
        if late := {o for o in others if floors[inside[o]] >= floors[folder]}:
            wrong[module] = late
    assert wrong == {}


def test_no_module_is_part_of_a_circle():
    """Imports inside functions and for types alone count."""
    found = circles(imports())
    assert [{m: sorted(imports()[m] & set(group)) for m in group} for group in found] == []


def test_circles_are_found():
    graph = {"a": {"b", "torch"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set()}
    assert circles(graph) == [["a", "b", "c"]]
    assert circles({**graph, "c": set()}) == []


def test_hidden_imports_are_found(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "import lowbit.data.decoding\n"
        "if TYPE_CHECKING:\n"
        "    from lowbit.quant.layers import QuantConv2d\n"
        "def function():\n"
        "    from lowbit.pretrain import recipe\n"
    )
    ours = {"lowbit.data.decoding", "lowbit.quant.layers", "lowbit.pretrain.recipe"}
    assert imported(file) == {"typing", *ours}


def test_a_folder_has_four_to_twelve_files():
    counts = Counter(folder(path) for path in MODULES.values())
    files = {name: count - (ROOT / name / "__init__.py").exists() for name, count in counts.items()}
    assert {n: f"{k} files" for n, k in files.items() if n not in SMALL and not 4 <= k <= 12} == {}
    assert {n: f"{files.get(n)} files" for n in SMALL if not files.get(n, 9) < 4} == {}


def test_files_of_one_name_have_one_meaning():
    places = defaultdict(set)
    for path in MODULES.values():
        if folder(path) not in NAMED_AFTER_OTHERS and path.name != "__init__.py":
            places[path.stem].add(folder(path))
    several = {name: sorted(found) for name, found in places.items() if len(found) > 1}
    assert {name: found for name, found in several.items() if name not in SHARED_NAMES} == {}
    assert set(SHARED_NAMES) <= set(several), "names that no longer repeat"


def test_nothing_of_ours_is_imported_by_a_bare_name():
    bare = {*FOLDERS, *ALLOWED} - {"lowbit"}
    assert {m: names & bare for m, names in imports().items() if names & bare} == {}


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
        users = [module for module, names in imports().items() if library in names]
        assert users and [m for m in users if not m.startswith((room, "lowbit.tools"))] == []


def test_yaml_is_read_and_written_in_one_place():
    users = {module for module, names in imports().items() if "yaml" in names}
    assert users == {f"lowbit.common.input_files.yaml_{name}" for name in ("values", "writer")}


def test_pillow_opens_named_formats_only():
    """Pillow tries every format it knows on a file, whatever the file's name is."""
    opened = []
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open":
                opened.append(path)
                assert "formats" in {word.arg for word in node.keywords}, f"{path}:{node.lineno}"
    assert opened


def test_quant_imports_torch_only():
    outside = set()
    for module, names in imports().items():
        if package(module) == "quant":
            outside |= {n for n in names if n not in MODULES} - set(sys.stdlib_module_names)
    assert outside == {"torch"}
