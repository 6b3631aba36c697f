"""A user's own files may have the names of our folders, in the working directory and on the path."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_imports import ALLOWED, MODULES

ROOT = Path(__file__).parents[1]
IMPORT_ROOT = ROOT / "tools" / "import_root"
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


@pytest.fixture
def start(tmp_path):
    """Start Python in a folder with such files, and with such files on its path as well."""
    here, elsewhere = tmp_path / "here", tmp_path / "site"
    for folder in (here, elsewhere):
        clutter(folder)

    def run(*words: object, path: tuple[Path, ...] = ()) -> subprocess.CompletedProcess:
        found = os.pathsep.join(map(str, (elsewhere, *path)))
        return subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=here,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": found},
            capture_output=True,
            text=True,
        )

    return run


def test_every_module_is_imported_beside_them_and_no_package_needs_detectron2_or_ray(start):
    ours = [name for name in MODULES if "import_root" not in name]
    code = (
        "import importlib, importlib.util, sys, warnings; warnings.simplefilter('ignore')\n"
        f"for name in {list(ALLOWED)!r}: importlib.import_module(f'lowbit.{{name}}')\n"
        "assert not {'detectron2', 'ray'} & sys.modules.keys()\n"
        "absent = {n for n in ('detectron2', 'ray', 'brevitas') if not importlib.util.find_spec(n)}\n"
        f"for name in {ours!r}:\n"
        "    try: importlib.import_module(name)\n"
        "    except ModuleNotFoundError as error:\n"
        "        assert error.name.split('.')[0] in absent, error\n"
    )
    done = start("-c", code, path=(IMPORT_ROOT,))
    assert done.returncode == 0, done.stderr


def test_a_suite_is_planned_and_its_jobs_run_beside_them(start, tmp_path):
    for name, text in (("suite", SUITE), ("pretrain", PRETRAIN), ("linear", LINEAR)):
        (tmp_path / f"{name}.yaml").write_text(text)
    done = start(ROOT / "tools" / "run_all.py", tmp_path / "suite.yaml", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "[2/2] completed" in done.stderr
    assert (tmp_path / "here" / "runs" / "leaderboard" / "index.html").is_file()


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
