"""One thread, fixed seeds, and skips that say why."""

import importlib.util
import os
import shutil
from multiprocessing import forkserver

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

DETECTRON2_REASON = (
    "detectron2 is not installed: the torchvision engine is tested instead. Install it with "
    "make detectron2"
)
_SERVER_OWNER = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = {
        "detectron2": importlib.util.find_spec("detectron2") is None and DETECTRON2_REASON,
        "cluster": importlib.util.find_spec("ray") is None
        and "ray is not installed: pip install -r requirements-ray.txt",
        "gpu": not torch.cuda.is_available() and "this machine has no CUDA device",
        "browser": shutil.which("chromedriver") is None
        and "chromedriver is not installed (Debian: apt-get install chromium chromium-driver)",
    }
    for item in items:
        for marker, reason in missing.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _fork_server(request: pytest.FixtureRequest) -> None:
    """Let no module's jobs come from another's server, but for those of the bench's fake stages."""
    owner = "bench" if "bench" in request.fixturenames else request.module.__name__
    if owner != request.config.stash.get(_SERVER_OWNER, owner):
        forkserver._forkserver._stop()
    request.config.stash[_SERVER_OWNER] = owner


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
