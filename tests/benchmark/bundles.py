"""Jobs that ran, to bundle, and a forger who leaves no hash behind."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lowbit.backbones import create_backbone, save_backbone
from lowbit.benchmark.planning.job import File, Job, Label, Output
from lowbit.benchmark.recipes.stages import get_stage
from lowbit.benchmark.recipes.yaml_files import validate
from lowbit.benchmark.results.build_result import completed
from lowbit.benchmark.results.result_file import Result, write_result
from lowbit.benchmark.submissions.manifest import Entry

ENTRY = Entry(name="jane-2026", submitter="Jane Doe, Somewhere")
USAGE = {"device": "cpu", "seconds": 1.5, "peak_memory_mb": 10.0, "peak_gpu_memory_mb": None}
SCENES = {
    **{"image_size": 64, "digits_per_scene": [1, 2], "digit_size": [16, 32], "device": "cpu"},
    **{"train_images": 8, "test_images": 6, "iterations": 2, "batch_size": 2},
    **{"warmup_iterations": 0, "calibration_images": 4, "engine": "torchvision"},
    **{"random_backbone": True, "architecture": "resnet10_slim"},
}


def run_job(runs: Path, stage: str, *, name: str = "mine", inputs=None, **recipe: Any) -> Job:
    """Run one job in this process; return it."""
    inputs = inputs or {}
    paths = {
        key: str(s.path if isinstance(s, File) else runs / s.job_id / "checkpoint.pth")
        for key, s in inputs.items()
    }
    job = Job.plan(stage, validate(stage, recipe | paths), inputs=inputs, label=Label(name, "SSQL"))
    assert job.problem is None
    folder = runs / job.id
    folder.mkdir(parents=True)
    returned = get_stage(stage).run(validate(stage, {**job.recipe, **paths}), folder)
    files = {key: Path(path) for key, path in paths.items()}
    write_result(folder, completed(job, returned, inputs=files, folder=folder, usage=USAGE))
    return job


def run_linear(runs: Path, **recipe: Any) -> Job:
    """Run a linear evaluation of an untrained network on digits, or as the recipe says."""
    file = runs.parent / "net.pth"
    runs.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        torch.manual_seed(0)
        save_backbone(file, create_backbone("resnet10_slim"), {"method": "untrained"})
    usual = {"dataset": "digits", "image_size": 16, "epochs": 2, "lr": 0.5}
    usual |= {"precisions": ["FP", "4w4a"], "metrics": ["top1", "mean_per_class"]}
    return run_job(runs, "transfer", inputs={"checkpoint": File.at(file)}, **(usual | recipe))


class Forger:
    """A bundle taken apart; `pack` writes one whose manifest fits whatever was changed."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        with zipfile.ZipFile(bundle) as archive:
            archive.extractall(folder)
        self.folder = folder
        (self.job,) = (folder / "jobs").iterdir()

    def edit(self, change: Callable[[dict], object], *, new_id: bool = False) -> None:
        """Change the result; with a new id, everything that is named by it too."""
        path = self.job / "result.json"
        mapping = json.loads(path.read_text())
        change(mapping)
        if new_id:
            mapping |= ids(mapping)
            self.job = self.job.rename(self.job.with_name(mapping["job_id"]))
            path = self.job / "result.json"
        path.write_text(json.dumps(mapping))
        (self.job / "recipe.yaml").unlink(missing_ok=True)  # it is for people, and may be left out

    def exchange(self, name: str, content: bytes) -> None:
        """Put other predictions or detections in, with their hash."""
        (self.job / name).write_bytes(content)
        artifact = name.partition(".")[0]
        digest = hashlib.sha256(content).hexdigest()
        self.edit(lambda mapping: mapping["artifact_sha256"].update({artifact: digest}))

    def pack(self, out: Path) -> Path:
        """Write the bundle, its manifest made to fit."""
        manifest = json.loads((self.folder / "manifest.json").read_text())
        files = sorted(p for p in (self.folder / "jobs").rglob("*") if p.is_file())
        manifest["files"] = {
            p.relative_to(self.folder).as_posix(): {
                "bytes": p.stat().st_size,
                "sha256": hashlib.sha256(p.read_bytes()).hexdigest(),
            }
            for p in files
        }
        (self.folder / "manifest.json").write_text(json.dumps(manifest))
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in [self.folder / "manifest.json", *files]:
                archive.write(path, path.relative_to(self.folder))
        return out


def ids(mapping: dict[str, Any]) -> dict[str, str]:
    """Return the id and the question that a result's content hashes to, by `Job` itself."""
    result = Result.model_validate(mapping | {"job_id": "0" * 12, "question": "0" * 12})
    inputs = {
        name: Output(record.job_id) if record.job_id else File(Path(record.path), record.sha256)
        for name, record in result.inputs.items()
    }
    job = Job(
        stage=result.stage,
        version=result.protocol_version,
        recipe={k: v for k, v in result.recipe.items() if k not in inputs},
        cosmetic=frozenset(get_stage(result.stage).Recipe.cosmetic),
        inputs=inputs,
        identity=result.identity,
        label=Label(result.checkpoint.name),
    )
    return {"job_id": job.id, "question": job.question}


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file under a folder by its relative path."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }
