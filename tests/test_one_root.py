"""A user's own files may have the names of our folders, in the working directory and on the path."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_imports import ALLOWED, MODULES

ROOT = Path(__file__).parents[1]
NAMES = (
    "backbones",
    "benchmark",
    "check",
    "configs",
    "data",
    "datasets",
    "detection",
    "pretrain",
    "quant",
    "runtime",
    "status",
    "tools",
    "training",
    "transfer",
)
SUITE = """
name: beside
precisions: [FP]
checkpoints:
  - {name: untrained, pretrain: pretrain.yaml}
transfer:
  - {recipe: linear.yaml}
"""
PRETRAIN = """
name: tiny
architecture: resnet10_slim
dataset: digits
image_size: 16
dim: 64
hidden_dim: 32
epochs: 0
"""
LINEAR = "{name: linear, dataset: digits, protocol: linear-exact, image_size: 16}"
# Which names are found in the checkout. Its environment may stand inside it, and what is installed
# there is nobody's fault here: Detectron2 installs a package of its own called `tools`.
BARE = f"""
import importlib.util, sys
found = {{name: importlib.util.find_spec(name) for name in {NAMES!r}}}
places = {{name: str(spec.origin or [*spec.submodule_search_locations])
          for name, spec in found.items() if spec}}
ours = [place for place in places.values() if {str(ROOT)!r} in place and sys.prefix not in place]
assert not ours, ours
"""


def clutter(folder: Path) -> None:
    """Write a module of each of our folders' names, which nobody may import; one is a package."""
    for name in NAMES:
        path = folder / (f"{name}/__init__.py" if name == "benchmark" else f"{name}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'raise RuntimeError("the user\'s own {name} was imported")\n')


CODE = f"""
import importlib, importlib.util, runpy, sys, warnings
warnings.simplefilter("ignore")
try:
    runpy.run_path(sys.argv[0], run_name="__main__")  # as Python runs a script
except SystemExit as stop:
    assert not stop.code, stop.code
print("the suite was run")
for name in {list(ALLOWED)!r}:
    importlib.import_module(f"lowbit.{{name}}")
assert not {{"detectron2", "ray"}} & sys.modules.keys()
absent = {{n for n in ("detectron2", "ray", "brevitas") if not importlib.util.find_spec(n)}}
for name in {[name for name in MODULES if "import_root" not in name]!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        assert error.name.split(".")[0] in absent, error
"""


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """A folder and a process in it: its path leads to such files too; it runs a suite, then imports all."""
    home = tmp_path_factory.mktemp("home")
    here, elsewhere = home / "here", home / "site"
    for folder in (here, elsewhere):
        clutter(folder)
    for name, text in (("suite", SUITE), ("pretrain", PRETRAIN), ("linear", LINEAR)):
        (home / f"{name}.yaml").write_text(text)
    words = [str(ROOT / "tools" / "run_all.py"), str(home / "suite.yaml"), "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[:] = {words!r}\n{CODE}"],
        cwd=here,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(elsewhere)},
        capture_output=True,
        text=True,
    )
    return here, done


def test_a_suite_is_planned_and_its_jobs_run_beside_them(beside):
    here, done = beside
    assert done.stdout.splitlines()[-1] == "the suite was run", done.stderr
    assert "[2/2] completed" in done.stderr
    assert (here / "runs" / "leaderboard" / "index.html").is_file()


def test_every_module_is_imported_beside_them_and_no_package_needs_detectron2_or_ray(beside):
    _, done = beside
    assert done.returncode == 0, done.stderr


def test_a_script_and_what_it_starts_find_nothing_of_ours_by_a_bare_name(tmp_path):
    code = (
        f"import runpy; runpy.run_path({str(ROOT / 'tools' / 'status.py')!r})\n"
        f"{BARE}\n"
        "import os, subprocess, sys\n"
        "from lowbit.common.child_python import import_variables\n"
        f"code = 'import lowbit.benchmark' + {BARE!r}\n"
        "env = {**os.environ, **import_variables()}\n"
        "sys.exit(subprocess.run([sys.executable, '-c', code], env=env).returncode)\n"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
