"""Videos through a whole job: samples are videos, what is trained and scored is their frames' mean."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from lowbit.backbones import create_backbone, load_backbone, save_backbone
from lowbit.data import Center, open_images
from lowbit.training.seeding import stream
from lowbit.transfer import Recipe, run
from lowbit.transfer.probes.sgd_probe import initial_classifier


@pytest.fixture
def sports(tmp_path):
    """Dark and bright videos of noise, three frames each: six a class to train on, three to test."""
    noise = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for name, light in (("dark", 0), ("bright", 128)):
            for video in range(count):
                folder = tmp_path / "sports" / split / name / str(video)
                folder.mkdir(parents=True)
                for frame in range(3):
                    pixels = noise.integers(light, light + 120, (36, 40, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{frame}.png")
    torch.manual_seed(0)
    save_backbone(tmp_path / "b.pth", create_backbone("resnet10_slim"), {"method": "-"})
    return tmp_path


def recipe(root, **fields):
    return Recipe(
        **{
            "checkpoint": str(root / "b.pth"),
            "data_root": str(root),
            "dataset": "frames:sports@2",
            "image_size": 32,
            "num_workers": 0,
            "device": "cpu",
            "calibration_batch_size": 4,
            "batch_size": 5,
            **fields,
        }
    )


def test_quantization_aware_training_on_videos(sports, tmp_path):
    found = run(
        recipe(
            sports,
            protocol="qat",
            policy="tr",
            optimizer="sgdt",
            precisions=["FP", "2w2a"],
            fp_start={"epochs": 2, "lr": 0.05},
            epochs=2,
        ),
        tmp_path / "job",
    )
    assert found["details"]["images"] == {"train": 10, "val": 2}  # videos
    values = {
        m["precision"]: (m["n"], m["value"]) for m in found["measurements"] if m["split"] == "test"
    }
    assert {n for n, _ in values.values()} == {6}
    assert values["FP"][1] == 100.0  # dark and bright are told apart


def test_what_is_scored_is_the_mean_of_the_frames_logits(sports, tmp_path):
    """A classifier that did not move predicts what a loop over the frames does."""
    job = recipe(sports, protocol="linear", precisions=["FP"], epochs=1, lr=1e-12, seed=3)
    (tmp_path / "job").mkdir()
    run(job, tmp_path / "job")
    found = pq.read_table(tmp_path / "job/predictions.parquet").to_pydict()
    backbone, _ = load_backbone(sports / "b.pth")
    weight, bias = initial_classifier(128, 2, generator=stream(3, "classifier"))
    expected = []
    for split in ("test", "val"):
        images = open_images("frames:sports@2", split, root=sports)
        view = Center(size=32, resize=32)
        for (video,) in images.batches(view, batch_size=1, device="cpu", workers=0):
            with torch.no_grad():
                logits = [backbone.eval()(frame[None]) @ weight.T + bias for frame in video]
            expected.append(int(torch.stack(logits).mean(0).argmax()))
    assert found["FP"] == expected
    assert set(expected) == {0, 1}


@pytest.mark.parametrize(
    "fields",
    [
        {"protocol": "finetune", "epochs": 1, "lr": 0.01, "precisions": ["FP", "3w3a"]},
        {"protocol": "qat", "epochs": 1, "lr": 0.01, "policy": "lsq", "precisions": ["4w4a"]},
        {"protocol": "linear", "epochs": 2, "lr": 1.0, "precisions": ["FP"]},
        {
            "protocol": "adaptive",
            "epochs": 1,
            "lr": 0.01,
            "adaptive": {"bits": [8, 4], "zero_shot": [], "norm_batches": 1},
        },
    ],
    ids=lambda fields: fields["protocol"],
)
def test_videos_with_several_labels_are_ranked_for_each(sports, tmp_path, fields):
    """The bright videos are also dark by the list; mAP is scikit-learn's on every target."""
    path = sports / "sports"
    (path / "frames").mkdir()
    lines = {"train": [], "test": []}
    for split in lines:
        for label, name in enumerate(("dark", "bright")):
            for video in sorted((path / split / name).iterdir()):
                video.rename(path / "frames" / f"{split}_{name}_{video.name}")
                several = "0,1" if (split, name, video.name) == ("test", "bright", "0") else label
                lines[split].append(f"{split}_{name}_{video.name},3,{several}")
        (path / f"{split}_split.txt").write_text("\n".join(lines[split]))
    job = recipe(sports, metrics=["mAP", "top1"], train_on="trainval", **fields)
    folder = tmp_path / "job"
    folder.mkdir()
    found = run(job, folder)
    images = open_images("frames:sports@2", "test", root=sports)
    assert images.targets.sum() == 7
    for precision in map(str, job.precisions):
        measured = {
            m["metric"]: m["value"] for m in found["measurements"] if m["precision"] == precision
        }
        classes = found["details"]["average_precisions"]["test"][precision]
        assert measured["mAP"] == pytest.approx(sum(classes) / 2)
        assert 0 < measured["mAP"] <= 100 and 0 <= measured["top1"] <= 100
