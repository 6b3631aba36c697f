"""The command for image sets on folders: listed, verified to the last file, and told where to go."""

import hashlib
import shutil
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from PIL import Image

from lowbit.benchmark.cli import datasets
from lowbit.data import locate
from tests.detection.annotated_folders import (
    annotation,
    coco_content,
    write_coco,
    write_voc,
    write_xml,
)
from tests.lowbit.data.conftest import publish  # noqa: F401


@pytest.fixture(scope="module")
def main():
    return lambda *words: datasets.main([str(word) for word in words])


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
    assert rows["folder:birds"] == ["2", "16", "4", "2", "4", sha256[:12], "files"]
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
    assert "1 problems" in said


def test_where_files_go_is_said(main, tmp_path, capsys):
    assert main("prepare", "imagenet", "folder:birds", "--root", tmp_path) == 1
    said = capsys.readouterr().out
    assert f"{tmp_path}/birds/train/CLASS/" in said
    assert "ILSVRC2012_img_train.tar" in said and f"{tmp_path}/imagenet" in said
    assert main("verify", "folder:a/b") == 1
    assert "does not name a folder" in capsys.readouterr().err


def test_archives_that_are_there_are_unpacked_and_those_that_are_not_are_told(
    main,
    publish,  # noqa: F811
    monkeypatch,
    capsys,
):
    from torchvision.datasets import DTD

    root = publish("dtd")
    made = shutil.make_archive(str(root / "made"), "gztar", root / "dtd", "dtd")
    shutil.rmtree(root / "dtd")
    monkeypatch.setattr(DTD, "_MD5", hashlib.md5(Path(made).read_bytes()).hexdigest())
    archive = root / "dtd" / DTD._URL.rpartition("/")[2]

    assert main("prepare", "dtd", "--root", root) == 1
    said = capsys.readouterr().out
    assert f"{archive}\n" in said and DTD._URL in said and DTD._MD5 in said
    archive.parent.mkdir()
    archive.write_bytes(Path(made).read_bytes()[:-7])  # a download that was cut off
    assert main("prepare", "dtd", "--root", root) == 1
    assert f"DAMAGED: {archive} has MD5" in capsys.readouterr().out
    shutil.copy(made, archive)
    assert main("prepare", "dtd", "--root", root) == 0
    assert "dtd: ok, 9 train, 3 val, 9 test" in capsys.readouterr().out


def test_a_download_that_fails_is_said_so(main, tmp_path, monkeypatch, capsys):
    def offline(*args, **options):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.urllib.request.urlopen", offline)
    assert main("prepare", "food101", "--download", "--root", tmp_path) == 1
    assert "food101: NOT UNPACKED: <urlopen error no network>" in capsys.readouterr().out


def test_a_published_set_is_verified_to_the_last_file(main, publish, capsys):  # noqa: F811
    root = publish("flowers102")
    assert main("verify", "flowers102", "--root", root, "--full") == 0
    folder = root / "flowers-102"
    assert (folder / ".lowbit/files.json").is_file()

    image = folder / "jpg/image_00003.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole + b"more")
    assert main("verify", "flowers102", "--root", root) == 1
    assert "DAMAGED: the sizes of its files" in capsys.readouterr().out
    image.write_bytes(b"\0" * len(whole))
    assert main("verify", "flowers102", "--root", root) == 0
    assert main("verify", "flowers102", "--root", root, "--full") == 1
    assert "image_00003.jpg cannot be decoded" in capsys.readouterr().out
    image.unlink()
    assert main("verify", "flowers102", "--root", root) == 1
    assert "NOT READY: flowers102" in capsys.readouterr().out
    image.write_bytes(whole)
    (folder / "102flowers.tgz").write_bytes(b"other")
    assert main("verify", "flowers102", "--root", root) == 1
    assert "102flowers.tgz has MD5" in capsys.readouterr().out


def test_folders_of_videos_are_listed_as_such(main, tmp_path, capsys):
    for split in ("train", "test"):
        for name in ("jump", "run"):
            for video in ("a", "b"):
                folder = tmp_path / "sports" / split / name / video
                folder.mkdir(parents=True)
                Image.new("RGB", (8, 6)).save(folder / "1.jpg")
    assert main("list", "--root", tmp_path) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "sports" in line]
    assert line.split()[:6] == ["frames:sports", "2", "any", "2", "2", "4"]
    assert main("verify", "frames:sports", "--full", "--root", tmp_path) == 0
    (tmp_path / "sports/test/run/b/1.jpg").write_bytes(b"no image")
    assert main("verify", "frames:sports", "--full", "--root", tmp_path) == 1
    assert "DAMAGED" in capsys.readouterr().out


def test_annotated_images_are_verified_by_every_value(main, tmp_path, capsys):
    objects = {name: [("cat", (2, 2, 11, 12), 0)] for name in "ab"}
    voc = write_voc(tmp_path / "farm", objects, {"train": ["a"], "test": ["b"]})
    for part, image in (("train", 7), ("val", 3)):
        content = coco_content([annotation(1, image, 5, [2, 3, 10, 8])], images=(image,))
        file = write_coco(tmp_path / "pets", part, content)
    assert main("verify", "coco:pets", "voc:farm", "--root", tmp_path) == 0
    said = capsys.readouterr().out
    assert "coco:pets: ok, 1 train, 0 val, 1 test" in said and "voc:farm: ok, 1 train" in said
    assert main("list", "coco:pets", "--root", tmp_path) == 0
    assert "coco:pets annotated images" in capsys.readouterr().out

    image = voc / "JPEGImages" / "b.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[:-300])
    assert main("verify", "voc:farm", "--root", tmp_path) == 1
    said = capsys.readouterr().out
    assert "DAMAGED: the annotations of test of voc:farm have 1 errors; nothing was changed" in said
    assert f"{image} cannot be decoded" in said and "1 problems" in said
    image.write_bytes(whole)
    file.write_text(file.read_text().replace('"iscrowd": 0', '"iscrowd": "0"'))
    assert main("verify", "coco:pets", "--root", tmp_path) == 1
    assert 'iscrowd is "0", not 0 or 1' in capsys.readouterr().out

    write_xml(voc / "Annotations" / "b.xml", [("cat", (0, 2, 11, 12), 0)])
    assert main("verify", "voc:farm", "--root", tmp_path) == 1
    assert "b.xml:3: annotation 1: a corner of 0" in capsys.readouterr().out
    assert main("verify", "voc:farm", "--root", tmp_path, "--voc-base", "0") == 0
    capsys.readouterr()
    assert main("prepare", "voc:barn", "--root", tmp_path) == 1
    assert "docs/detection_data.md" in capsys.readouterr().out
