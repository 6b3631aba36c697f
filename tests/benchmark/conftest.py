"""A bench to try sweeps on: stages that take no time, a suite around them, and ways to run it."""

import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest
import yaml

import lowbit
from lowbit.benchmark.cli import run
from lowbit.benchmark.executors import job_process, local
from lowbit.benchmark.planning.job import Job
from lowbit.benchmark.planning.plan import Plan, plan
from lowbit.benchmark.recipes.stages import STAGES
from lowbit.benchmark.results.result_file import Result, read_result
from lowbit.benchmark.scheduling.schedule import Schedule
from lowbit.common.child_python import import_variables

ROOT = Path(__file__).resolve().parents[2]
FAKE = Path(__file__).with_name("fake_stage.py")
FAKE_TORCH = Path(__file__).with_name("fake_torch.py")
DRIVER = """
import sys
sys.path.insert(0, sys.argv[1])  # whose lowbit has the fakes; a job's process gets this path
import light_jobs
from lowbit.benchmark.cli import run
from lowbit.benchmark.executors import local
from lowbit.benchmark.scheduling import estimate
local.visible_gpus = lambda: []  # to ask torch for GPUs takes as long as to import it
estimate.this_device = lambda: "cpu"
if __name__ == "__main__":
    sys.exit(run.main(sys.argv[2:]))
"""
# Imported by a runner: its jobs' processes have a torch of their own, which takes no time to import.
LIGHT_JOBS = """
import os
from lowbit.benchmark.executors import job_process
from lowbit.common.child_python import import_variables

def variables():
    found = import_variables()
    return {{**found, "PYTHONPATH": os.pathsep.join(({light!r}, found["PYTHONPATH"]))}}

job_process._PRELOAD = ["torch", "lowbit.quant", "lowbit.benchmark.executors.worker"]
job_process.import_variables = variables
"""
LIGHT_QUANT = f"""
__path__.append({str(ROOT / "lowbit" / "quant")!r})
from lowbit.quant.kernels.keep_freed_memory import keep_freed_memory
"""


def package(*folders: Path) -> str:
    """Return the source of a package `lowbit` that has modules of its own in front of these folders'."""
    return f"""
from pathlib import Path
__path__ = [str(Path(__file__).parent), *{[str(folder) for folder in folders]!r}]
"""


class Bench:
    """A folder with fake stages, recipes of theirs and a suite."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.stages = folder / "stages"
        self.runs = folder / "runs"
        self.journal = folder / "journal.txt"
        self.light = folder / "light"
        fakes = self.stages / "lowbit"
        for stage in STAGES:
            (fakes / stage).mkdir(parents=True)
            shutil.copy(FAKE, fakes / stage / "__init__.py")
            (fakes / stage / "stage.py").touch()  # in front of the real one, which imports much
            recipe = {"name": f"fake {stage}", "journal": str(self.journal)}
            (folder / f"{stage}.yaml").write_text(yaml.safe_dump(recipe))
        real = (ROOT / "lowbit", ROOT)
        (fakes / "__init__.py").write_text(package(*real))
        quant = self.light / "lowbit" / "quant" / "__init__.py"
        quant.parent.mkdir(parents=True)
        quant.write_text(LIGHT_QUANT)
        (self.light / "lowbit" / "__init__.py").write_text(package(fakes, *real))
        shutil.copy(FAKE_TORCH, self.light / "torch.py")
        (self.stages / "light_jobs.py").write_text(LIGHT_JOBS.format(light=str(self.light)))
        (folder / "driver.py").write_text(DRIVER)

    def suite(self, **keys: object) -> Path:
        """Write a suite of one pretrained checkpoint and one transfer recipe, but for `keys`."""
        path = self.folder / "suite.yaml"
        suite = {
            "name": "fakes",
            "checkpoints": [{"name": "made", "pretrain": "pretrain.yaml"}],
            "transfer": [{"recipe": "transfer.yaml"}],
            **keys,
        }
        path.write_text(yaml.safe_dump(suite))
        return path

    def plan(self, **keys: object) -> Plan:
        return plan(self.suite(**keys))

    def run(self, planned: Plan, *, overwrite: str = "failed", workers: int | None = 1) -> Schedule:
        schedule = Schedule(planned, self.runs, overwrite=overwrite)
        local.run(schedule, workers=workers)
        return schedule

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start a run of the suite, with the fake stages, in a process of its own."""
        return subprocess.Popen(
            [
                sys.executable,
                str(self.folder / "driver.py"),
                str(self.stages),
                str(self.folder / "suite.yaml"),
                "--runs-dir",
                str(self.runs),
                *arguments,
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def main(self, *arguments: str) -> int:
        """Run the suite in this process."""
        suite = str(self.folder / "suite.yaml")
        return run.main([suite, "--runs-dir", str(self.runs), *arguments])

    def result(self, job: Job) -> Result | None:
        return read_result(self.runs / job.id)

    def events(self, what: str) -> list[str]:
        """Return the ids of the jobs that began, or ended, in that order."""
        if not self.journal.exists():
            return []
        lines = [line.split() for line in self.journal.read_text().splitlines()]
        return [job_id for event, _, job_id, _ in lines if event == what]

    def processes(self) -> set[int]:
        """Return the ids of the processes that jobs began in."""
        return {int(line.split()[3]) for line in self.journal.read_text().splitlines()}


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A bench whose fake stages also stand in for the real ones in this process."""
    made = Bench(tmp_path)
    for stage in STAGES:
        name, file = f"lowbit.{stage}", made.stages / "lowbit" / stage / "__init__.py"
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(lowbit, stage, module, raising=False)
        spec.loader.exec_module(module)
    monkeypatch.syspath_prepend(made.stages)  # a job's process gets this path
    for name in ("_PRELOAD", "import_variables"):
        monkeypatch.setattr(job_process, name, getattr(job_process, name))  # what is undone
    runpy.run_path(str(made.stages / "light_jobs.py"))
    return made


@pytest.fixture
def with_torch(bench, monkeypatch):
    """Let the bench's jobs have the real torch."""
    monkeypatch.setattr(job_process, "import_variables", import_variables)
    forkserver._forkserver._stop()
    yield
    forkserver._forkserver._stop()


@pytest.fixture(scope="session")
def linear_bundle(tmp_path_factory):
    """A bundle of one linear evaluation on digits that really ran."""
    from lowbit.benchmark.submissions import write_bundle
    from tests.benchmark.bundles import ENTRY, run_linear

    home = tmp_path_factory.mktemp("linear")
    run_linear(home / "runs")
    write_bundle(home / "runs", home / "linear.zip", ENTRY)
    return home / "linear.zip"
