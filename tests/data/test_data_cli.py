"""tools/datasets.py on folders: listed, verified to the last file, and told where to go."""

import importlib.util
from pathlib import Path

import pytest
import torch
from PIL import Image

from data import locate

TOOL = Path(__file__).parents[2] / "tools/datasets.py"


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("datasets_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *words: module.main([str(word) for word in words])


@pytest.fixture
def birds(tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        for c in ("jay", "owl"):
            (tmp_path / "birds" / part / c).mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(0, 256, (16, 16, 3), dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(tmp_path / "birds" / part / c / f"{i}.png")
    return tmp_path


def test_folders_under_the_root_are_listed(main, birds, capsys):
    assert main("list", "--root", birds) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    sha256 = locate("folder:birds", root=birds).split_sha256
    assert rows["folder:birds"] == ["2", "16", "4", "2", "4", sha256[:12]]
    assert rows["imagenet"][:5] == ["1000", "any", "1271167", "10000", "50000"]


def test_a_damaged_file_is_found_where_every_file_is_decoded(main, birds, capsys):
    assert main("verify", "folder:birds", "--root", birds, "--full") == 0
    assert "folder:birds: ok, 4 train, 2 val, 4 test" in capsys.readouterr().out
    path = birds / "birds/test/owl/1.png"
    path.write_bytes(path.read_bytes()[:300])
    assert main("verify", "folder:birds", "--root", birds) == 0
    assert main("verify", "folder:birds", "--root", birds, "--full") == 1
    said = capsys.readouterr().out
    assert "DAMAGED: " in said and "owl/1.png cannot be decoded" in said
    assert "1 damaged files" in said


def test_where_files_go_is_said(main, tmp_path, capsys):
    assert main("prepare", "imagenet", "folder:birds", "--root", tmp_path) == 1
    said = capsys.readouterr().out
    assert f"{tmp_path}/birds/train/CLASS/" in said
    assert "ILSVRC2012_img_train.tar" in said and f"{tmp_path}/imagenet" in said
    assert main("verify", "folder:a/b") == 1
    assert "does not name a folder" in capsys.readouterr().err
