"""The curves of several quantization-aware training jobs as frames. (TR Figs. 1 and S1, S3 to S5)

A *run* is one precision of one job. Everything is read from the curves that the jobs wrote (`rows`), whether
finished, running or killed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lowbit.common.input_files.yaml_bases import load_file
from lowbit.transfer.analyses.epoch_rows import EpochRow, read_parts

_BY_LAYER = ("target", "rate", "running", "lr", "effective_step")
_BINS = ("job", "precision", "epoch", "layer", "left", "right", "count")
_TOLD_APART = 3  # most recipe keys in a job's name


def read(jobs: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """Return the curves of qat jobs.

    Returns:
        Three frames, with columns job and precision first:
        `transitions`, one row per epoch and layer: target R, rate k, running K, lr U, effective_step and
        mean_distance of latent weights to the nearest transition point, nan where an optimizer has none;
        `curves`, one row per epoch: lr, and a column per loss and accuracy, such as loss_train;
        `latent`, one row per epoch, layer and bin: left, right, count.

    Raises:
        FileNotFoundError, ValueError: see `read_parts`; or a job is listed twice.
    """
    folders = [Path(job) for job in jobs]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError("a job is listed twice; nothing was drawn. List each once.")
    parts = [read_parts(folder) for folder in folders]
    found: dict[str, list[dict[str, Any]]] = {"transitions": [], "curves": [], "latent": []}
    for label, by_precision in zip(_labels(folders), parts, strict=True):
        for precision, rows in by_precision.items():
            for row in rows:
                place = {"job": label, "precision": precision, "epoch": row.epoch}
                found["transitions"] += [place | x for x in _layers(row)]
                found["curves"].append(place | _curve(row))
                found["latent"] += [place | x for x in _bins(row)]
    return {
        "transitions": pd.DataFrame(found["transitions"]).astype(
            dict.fromkeys([*_BY_LAYER, "mean_distance"], float)
        ),
        "curves": pd.DataFrame(found["curves"]),
        "latent": pd.DataFrame(found["latent"], columns=_BINS),
    }


def _layers(row: EpochRow) -> list[dict[str, Any]]:
    of_layer = {name: row.transitions.by_layer(name) for name in _BY_LAYER}
    latent = row.latent
    distance = dict(zip(latent.names, latent.mean_distance, strict=True)) if latent else {}
    return [
        {"layer": layer}
        | {name: values[index] for name, values in of_layer.items()}
        | {"mean_distance": distance.get(layer)}
        for index, layer in enumerate(row.transitions.names)
    ]


def _curve(row: EpochRow) -> dict[str, float]:
    measured = {"loss": row.loss, "accuracy": row.accuracy}
    return {"lr": row.lr} | {
        f"{name}_{split}": value
        for name, by_split in measured.items()
        for split, value in by_split.items()
    }


def _bins(row: EpochRow) -> list[dict[str, Any]]:
    if row.latent is None:
        return []
    edges = row.latent.edges
    return [
        {"layer": layer, "left": left, "right": right, "count": count}
        for layer, counts in zip(row.latent.names, row.latent.histogram, strict=True)
        for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def _labels(folders: Sequence[Path]) -> list[str]:
    """Name jobs by how their recipes differ, or by their folders if that is not enough."""
    recipes = [_recipe(folder) for folder in folders]
    shared = set.intersection(*(set(recipe) for recipe in recipes)) - {"name"}
    telling = [key for key in recipes[0] if key in shared and len({r[key] for r in recipes}) > 1]
    if "optimizer" in telling and len({r["optimizer"] for r in recipes}) == len(recipes):
        telling = ["optimizer"]  # which determines learning rate, policy and decay
    labels = [", ".join(_words(key, recipe[key]) for key in telling) for recipe in recipes]
    if 0 < len(telling) <= _TOLD_APART and len(set(labels)) == len(labels):
        return labels
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _recipe(folder: Path) -> dict[str, str]:
    """Return the recipe that a suite stored, flattened, as text; empty if there is none."""
    path = folder / "recipe.yaml"
    if not path.is_file():
        return {}
    recipe = load_file(path)
    return {key: str(value) for key, value in _flat(recipe).items()}


def _flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in section.items():
        found |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return found


def _words(key: str, value: str) -> str:
    return (
        value if key in ("optimizer", "checkpoint") else f"{key.split('.')[-1].strip('_')} {value}"
    )


def pick_layer(frames: dict[str, pd.DataFrame], layer: str | None) -> dict[str, pd.DataFrame]:
    """Return the frames with only one layer's rows, or unchanged.

    Raises:
        ValueError: no run has such a layer.
    """
    if layer is None:
        return frames
    known = list(dict.fromkeys(frames["transitions"].layer))
    if layer not in known:
        raise ValueError(
            f"no job has a quantized layer {layer!r}; nothing was drawn. Known layers: {', '.join(known)}."
        )
    return {
        name: frame[frame.layer == layer] if "layer" in frame else frame
        for name, frame in frames.items()
    }
