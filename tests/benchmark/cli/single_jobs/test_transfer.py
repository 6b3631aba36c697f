"""The command lines: a recipe file in, a table and a file out; errors without a traceback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lowbit.backbones import create_backbone, save_backbone
from lowbit.benchmark.cli import datasets
from lowbit.benchmark.cli.single_jobs import transfer
from lowbit.benchmark.recipes.yaml_files import load_yaml, validate
from lowbit.data import image_set, list_datasets

ROOT = Path(__file__).resolve().parents[4]
CONFIGS = sorted((ROOT / "configs" / "transfer").glob("[!_]*.yaml"))


def _script(name, *words):
    """Run a tool as a user does: from anywhere, in a process of its own, without PYTHONPATH."""
    return subprocess.run(
        [sys.executable, ROOT / "tools" / name, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT / "tools",
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        timeout=120,
    )


def _main(module):
    return lambda *words: module.main([str(word) for word in words])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("backbone") / "checkpoint.pth"
    torch.manual_seed(0)
    save_backbone(path, create_backbone("resnet10_slim"), {"method": "untrained", "data": "-"})
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_file_is_valid_and_says_what_it_is(path):
    recipe = validate("transfer", load_yaml(path, ["checkpoint", "b.pth"]), source=path)
    assert recipe.name == path.stem
    assert recipe.dataset in list_datasets() or recipe.dataset.startswith(("folder:", "frames:"))
    header = path.read_text().split("\n\n")[0]
    for word in ("Paper", "Command", "Published", "Cost", f"configs/transfer/{path.name}"):
        assert word in header


@pytest.mark.parametrize(
    ("stem", "wanted"),
    [
        ("cifar10_linear", (100, 30.0, (60, 80), 0.0, 512)),  # SPEC A.8
        ("cifar100_linear", (100, 30.0, (60, 80), 0.0, 512)),
        ("cifar10_finetune", (50, 1e-3, (30, 40), 1e-4, 512)),
        ("cifar100_finetune", (50, 1e-2, (30, 40), 1e-4, 512)),
    ],
)
def test_cifar_recipes_have_the_published_numbers(stem, wanted):
    path = ROOT / "configs" / "transfer" / f"{stem}.yaml"
    r = validate("transfer", load_yaml(path, ["checkpoint", "b.pth"]))
    assert (r.epochs, r.lr, r.milestones, r.weight_decay, r.batch_size) == wanted
    assert (r.augmentation.scale, r.augmentation.flip) == ((0.8, 1.0), 0.5)
    assert (r.image_size, r.eval_resize, r.momentum, r.gamma) == (32, 36, 0.9, 0.1)
    assert (r.warmup_fc is not None) == (stem == "cifar100_finetune")


@pytest.mark.parametrize(
    ("stem", "wanted"),
    [  # SPEC A.8: epochs, rate, decays, weight decay, images a step, pixels before the crop
        ("flowers102_linear", (100, 100.0, (60, 80), 0.0, 256, 256)),
        ("food101_linear", (50, 30.0, (30, 40), 0.0, 256, 256)),
        ("pets_linear", (100, 30.0, (60, 80), 0.0, 256, 256)),
        ("dtd_linear", (100, 30.0, (60, 80), 0.0, 256, 256)),
        ("caltech101_linear", (100, 30.0, (60, 80), 0.0, 256, 256)),
        ("cifar10_224_linear", (100, 30.0, (60, 80), 0.0, 512, 224)),
        ("cifar100_224_linear", (100, 30.0, (60, 80), 0.0, 512, 224)),
        ("flowers102_finetune", (50, 1e-3, (30, 40), 1e-4, 256, 256)),
        ("food101_finetune", (50, 1e-3, (30, 40), 1e-4, 256, 256)),
        ("pets_finetune", (50, 1e-3, (30, 40), 1e-4, 256, 256)),
        ("dtd_finetune", (50, 1e-3, (30, 40), 1e-4, 256, 256)),
        ("caltech101_finetune", (50, 1e-3, (30, 40), 1e-4, 256, 256)),
        ("cifar10_224_finetune", (50, 1e-2, (30, 40), 1e-4, 512, 224)),
        ("cifar100_224_finetune", (50, 1e-2, (30, 40), 1e-4, 512, 224)),
        ("imagenet_linear", (100, 30.0, (60, 80), 0.0, 256, 256)),
        ("imagenet_finetune", (90, 1e-2, (30, 60), 1e-4, 256, 256)),
    ],
)
def test_recipes_at_224_pixels_have_the_published_numbers(stem, wanted):
    path = ROOT / "configs" / "transfer" / f"{stem}.yaml"
    r = validate("transfer", load_yaml(path, ["checkpoint", "b.pth"]))
    found = (r.epochs, r.lr, r.milestones, r.weight_decay, r.batch_size, r.eval_resize)
    assert found == wanted
    assert (r.momentum, r.gamma, r.image_size, r.train_on) == (0.9, 0.1, 224, "trainval")
    assert r.eval_interpolation == r.augmentation.interpolation == "bilinear"
    assert (r.augmentation.scale, r.augmentation.flip) == ((0.08, 1.0), 0.5)
    assert r.metrics == image_set(r.dataset).metrics
    if r.protocol == "finetune":  # from the linear evaluation's classifier, but for two
        cold = stem in ("cifar10_224_finetune", "imagenet_finetune")
        assert (r.warmup_fc is None) == cold
    if r.warmup_fc is not None:
        linear = load_yaml(path.with_name(path.name.replace("finetune", "linear")))
        assert r.warmup_fc.epochs == linear["epochs"] and r.warmup_fc.lr == float(linear["lr"])
        assert list(r.warmup_fc.milestones) == linear["milestones"]


def test_a_job_from_the_command_line(checkpoint, tmp_path, capsys):
    code = _main(transfer)(
        "--config-file",
        ROOT / "configs/transfer/digits_linear.yaml",
        "--output-dir",
        tmp_path / "run",
        "checkpoint",
        checkpoint,
        "epochs",
        "3",
        "milestones",
        "[2]",
        "precisions",
        "[FP, W3A3]",
        "metrics",
        "[top1, mean_per_class]",
    )
    said = capsys.readouterr()
    assert code == 0, said.err
    outcome = json.loads((tmp_path / "run" / "measurements.json").read_text())
    assert outcome["recipe"]["precisions"] == ["FP", "3w3a"]
    lines = said.out.splitlines()
    assert "test top1 % (n=540)" in lines[0] and "val mean_per_class % (n=180)" in lines[0]
    assert [line.split()[0] for line in lines[1:3]] == ["FP", "3w3a"]
    fp = next(m["value"] for m in outcome["measurements"] if m["precision"] == "FP")
    assert float(lines[1].split()[1]) == pytest.approx(fp, abs=0.005)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["checkpoint", "nowhere.pth"], "nowhere.pth"),
        (["checkpoint", "b.pth", "epoch", "3"], "Did you mean 'epochs'"),
        ([], "checkpoint: required"),
    ],
)
def test_a_user_s_error_is_a_message_and_exit_1(words, message, tmp_path, capsys):
    config = ROOT / "configs/transfer/digits_linear.yaml"
    main = _main(transfer)
    assert main("--config-file", config, "--output-dir", tmp_path, *words) == 1
    assert message in capsys.readouterr().err


def test_an_earlier_training_is_taken_up_only_when_told_to(checkpoint, tmp_path, capsys):
    config = ROOT / "configs/transfer/digits_finetune.yaml"
    overrides = ("checkpoint", checkpoint, "epochs", "1", "milestones", "[]", "precisions", "[FP]")
    main = _main(transfer)
    words = ("--config-file", config, "--output-dir", tmp_path)
    assert main(*words, *overrides) == 0
    first = (tmp_path / "measurements.json").read_bytes()
    assert main(*words, *overrides) == 1
    assert "--resume" in capsys.readouterr().err
    assert main(*words, "--resume", *overrides) == 0
    assert (tmp_path / "measurements.json").read_bytes() == first


@pytest.mark.parametrize("tool", ["transfer.py", "datasets.py"])
def test_help_ends_in_examples_of_files_that_exist(tool):
    done = _script(tool, "--help")
    assert done.returncode == 0
    examples = done.stdout.partition("examples:")[2]
    named = [word for word in examples.split() if word.startswith("configs/")]
    assert f"lowbit-bench {tool.removesuffix('.py')} " in examples
    assert all((ROOT / word).is_file() for word in named)


def test_datasets_are_listed_and_verified(capsys):
    main = _main(datasets)
    assert main("list") == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed[1:]] == list_datasets()
    assert main("verify", "digits") == 0
    assert "1077 train, 180 val, 540 test" in capsys.readouterr().out


def test_a_set_that_is_not_there_says_where_it_goes(tmp_path, capsys):
    main = _main(datasets)
    assert main("prepare", "cifar10", "digits", "--root", tmp_path) == 1
    said = capsys.readouterr().out
    assert str(tmp_path) in said and "archive" in said
    assert main("verify", "cifar") == 1
    assert "Did you mean 'cifar10'" in capsys.readouterr().err
