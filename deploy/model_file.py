"""ONNX files that say what they are."""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lowbit.common.atomic_file import atomic
from lowbit.deploy.subject import Subject

SUFFIX = ".onnx"


def described(model: bytes, subject: Subject) -> bytes:
    """Return a model with its facts as metadata: a text, or JSON, under each name."""
    import onnx

    loaded = onnx.load_from_string(model)
    facts = {
        name: v if isinstance(v, str) else json.dumps(v) for name, v in facts_of(subject).items()
    }
    onnx.helper.set_model_props(loaded, facts)
    loaded.producer_name = "lowbit-bench"
    loaded.producer_version = _version()
    return loaded.SerializeToString()


def facts_of(subject: Subject) -> dict[str, object]:
    """Return what a user of the model has to know, in plain types."""
    return {
        "precision": str(subject.precision),
        "policy": subject.policy.name,
        "policy_fingerprint": subject.policy.fingerprint,
        "architecture": subject.architecture,
        "checkpoint_sha256": subject.checkpoint_sha256,
        "dataset": subject.dataset,
        "resize": subject.view.resize,
        "image_size": subject.view.size,
        "interpolation": subject.view.interpolation,
        "mean": list(subject.mean),
        "std": list(subject.std),
        "classes": None if subject.classes is None else list(subject.classes),
    }


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a place where a model cannot be written, before any work is done.

    Raises:
        FileNotFoundError: its folder does not exist.
        FileExistsError: there is a file already.
        ValueError: it is not named as a model.
    """
    if path.suffix != SUFFIX:
        raise ValueError(
            f"{path} is not named as an ONNX model; nothing was written. Give a name that ends in {SUFFIX}."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {path.parent}; nothing was written. Make it: mkdir -p {path.parent}."
        )
    if path.is_dir() or (path.exists() and not overwrite):
        raise FileExistsError(
            f"{path} exists; nothing was written. Name another file, or add --overwrite."
        )


def write_model(path: Path, model: bytes, card: str) -> Path:
    """Write a model and its card beside it, each whole or not at all; return the card's path."""
    beside = path.with_suffix(".md")
    with atomic(path) as file:
        file.write(model)
    with atomic(beside) as file:
        file.write(card.encode())
    return beside


def _version() -> str:
    try:
        return version("lowbit-bench")
    except PackageNotFoundError:
        return "-"
