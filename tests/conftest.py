"""One thread, fixed seeds, and skips that say why."""

import gc
import importlib.util
import logging
import os
import shutil
import sys
from multiprocessing import forkserver

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Hypothesis would import plugins of other packages; trio's has it search all memory for garbage.
os.environ.setdefault("HYPOTHESIS_NO_PLUGINS", "1")

import pytest
import torch

from lowbit.training.seeding import seed_torch

# Byte code is kept, whatever the environment says: each of many processes would compile all anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

DETECTRON2_REASON = (
    "detectron2 is not installed: the torchvision engine is tested instead. Install it with "
    "make detectron2"
)
_TOGETHER = (
    {
        "tests/benchmark/cli/test_export.py",
        "tests/deploy/test_detector.py",
        "tests/deploy/test_export_model.py",
        "tests/deploy/test_measurements.py",
        "tests/deploy/test_stage.py",
        "tests/detection/test_exported_detector.py",
        "tests/lowbit/export/test_onnx_export.py",
        "tests/lowbit/export/test_openvino_runtime.py",
        "tests/lowbit/export/test_peak_memory.py",
        "tests/lowbit/export/test_runtime_rewrites.py",
    },
    {
        "tests/lowbit/quant/kernels/test_c_kernels.py",
        "tests/lowbit/quant/kernels/test_exact_ties.py",
        "tests/lowbit/quant/kernels/test_torch_compiled.py",
        "tests/lowbit/quant/structure/test_weight_reads.py",
        "tests/lowbit/quant/test_training_stack.py",
        "tests/lowbit/quant/transition/test_runs.py",
    },
)
"""Files that one process runs: it loads torch's exporter or compiler once, which takes seconds."""
_FAKES = pytest.StashKey[
    bool
]()  # whether a module's jobs, and the fork server's, are of fake stages


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    config.pluginmanager.register(SeedFixtures())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Return --dist loadfile's scheduler, for which the files of `_TOGETHER` are one."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class LoadFiles(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((min(files) for files in _TOGETHER if file in files), file)

    return LoadFiles(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> object:
    """Search for garbage neither among what collecting imports and makes, nor there again later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        _let_torchs_logs_propagate()


def _let_torchs_logs_propagate() -> None:
    """Let `torch` write what loggers of its modules do: pytest then has one of them to watch, not fifty.

    At each phase of each test it adds two handlers to every logger that does not propagate.
    """
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("torch.") and isinstance(logger, logging.Logger):
            logger.handlers.clear()  # else its messages would be written twice
            logger.propagate = True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = {
        "detectron2": importlib.util.find_spec("detectron2") is None and DETECTRON2_REASON,
        "cluster": importlib.util.find_spec("ray") is None
        and "ray is not installed: pip install -r requirements-ray.txt",
        "gpu": not torch.cuda.is_available() and "this machine has no CUDA device",
        "browser": shutil.which("chromedriver") is None
        and "chromedriver is not installed (Debian: apt-get install chromium chromium-driver)",
    }
    with_fakes = {item.module for item in items if "bench" in item.fixturenames}
    for item in items:
        item.stash[_FAKES] = item.module in with_fakes
        for marker, reason in missing.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(tryfirst=True)  # before any fixture runs a job
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let no job of the real stages come from a server that loaded fakes, nor the other way round."""
    fakes = item.stash[_FAKES]
    if fakes != item.config.stash.get(_FAKES, fakes):
        forkserver._forkserver._stop()
    item.config.stash[_FAKES] = fakes


class SeedFixtures:
    """Seeds what tests share as well: it is made before `_seed` runs, after whatever the last test drew.

    A plugin of its own, since pytest asks this folder's hooks about no fixture of the whole session.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef) -> None:
        if fixturedef.scope != "function":
            seed_torch(0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    seed_torch(0)
