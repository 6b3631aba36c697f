"""Reading any file takes at most four times its size and 300 MB, and ends soon."""

import os
import resource
from pathlib import Path

import pytest

from lowbit.backbones import CheckpointError, create_backbone, load_backbone, save_backbone
from lowbit.backbones.checkpoints.file_formats import file_bytes
from lowbit.backbones.checkpoints.inspect import inspect_checkpoint
from tests.lowbit.backbones.checkpoints.file_formats.hostile_files import FILES, MANY_OBJECTS

SECONDS = 120  # of processor time, on any machine


def read_within_bounds(path: Path) -> str:
    """Read a file in a forked process that gets no more memory; return what it said."""
    bound = 4 * path.stat().st_size + 300_000_000
    receiver, sender = os.pipe()
    if not (pid := os.fork()):
        used = next(
            int(line.split()[1]) * 1024
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmData")
        )
        resource.setrlimit(resource.RLIMIT_DATA, (used + bound, used + bound))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        try:
            load_backbone(path)
            said = "loaded"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(sender, said.encode()[:4000])
        os._exit(0)
    os.close(sender)
    _, status = os.waitpid(pid, 0)
    assert status == 0
    with os.fdopen(receiver) as answer:
        return answer.read()


@pytest.fixture(scope="module", autouse=True)
def _ready(tmp_path_factory):
    """Import and find beforehand what every child would."""
    path = tmp_path_factory.mktemp("ready") / "x.pth"
    save_backbone(path, create_backbone("resnet10_slim"), {"method": "-", "data": "-"})
    load_backbone(path)
    with pytest.raises(CheckpointError):
        path.write_bytes(FILES["a block of a high number"]())
        inspect_checkpoint(path) and load_backbone(path)


@pytest.mark.parametrize(
    "kind", [k if k not in MANY_OBJECTS else pytest.param(k, marks=pytest.mark.slow) for k in FILES]
)
def test_small_files_stay_small(tmp_path, kind):
    path = tmp_path / "x.pth"
    path.write_bytes(FILES[kind]())
    said = read_within_bounds(path)
    assert said.startswith("CheckpointError: ") and "nothing was loaded" in said, said


def test_a_good_file_is_read_within_the_bounds(slim, tmp_path):
    save_backbone(tmp_path / "x.pth", slim, {"method": "-", "data": "-"})
    assert read_within_bounds(tmp_path / "x.pth") == "loaded"


def test_a_file_larger_than_a_third_of_memory_is_not_opened(tmp_path, monkeypatch):
    assert file_bytes.largest_file() > 2**28
    monkeypatch.setattr(file_bytes, "largest_file", lambda: 1000)
    (tmp_path / "x.pth").write_bytes(bytes(1001))
    with pytest.raises(
        CheckpointError, match=r"has 1\.0 kB; at most 1\.0 kB are read.*nothing was"
    ):
        load_backbone(tmp_path / "x.pth")


@pytest.mark.timeout(20)
def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="it is a named pipe, not a file; nothing was loaded"):
        load_backbone(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="it is a folder, not a file; nothing was loaded"):
        load_backbone(tmp_path)
