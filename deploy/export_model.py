"""Export a network to a file, once what runs it was seen to agree with the simulation."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lowbit.data import open_images
from lowbit.deploy.agreement import Agreement, batches, compare, some_images
from lowbit.deploy.model_card import RuntimeCheck, model_card
from lowbit.deploy.model_file import check_output, described, write_model
from lowbit.deploy.subject import Subject
from lowbit.export.onnx_export import Exported, ExportError, export_network, require_exporter
from lowbit.export.runtime import RUNTIMES, RuntimeMissingError, get_runtime, on_integers

CHECKED_IMAGES = 500


@dataclass(frozen=True)
class ExportedFile:
    """An exported model.

    Attributes:
        path, card: its file and the card's.
        size: of the file, bytes.
        agreement: with the simulation, by runtime.
        checks: how each runtime computes it.
    """

    path: Path
    card: Path
    size: int
    agreement: Agreement
    checks: dict[str, RuntimeCheck]


def prepare(path: Path, runtime: str, *, overwrite: bool = False) -> None:
    """Refuse, before any work, what would end without a model.

    Raises:
        ValueError, OSError: the file cannot be written.
        ImportError: the runtime or torch's exporter is not installed.
    """
    check_output(path, overwrite=overwrite)
    require_exporter()
    get_runtime(runtime)


def to_graph(subject: Subject) -> Exported:
    """Return the graph of a network, with its facts as metadata.

    Raises:
        ExportError: a layer cannot be exported; the message names it.
    """
    side = subject.view.size
    example = torch.zeros(2, 3, side, side)
    exported = export_network(subject.network, example, outputs=[subject.output])
    model, packed = (described(each, subject) for each in (exported.model, exported.packed))
    return replace(exported, model=model, packed=packed)


def export_model(
    subject: Subject,
    path: Path,
    *,
    runtime: str,
    pack: bool = False,
    data_root: str | None = None,
) -> ExportedFile:
    """Export a network, compare it with the simulation in every installed runtime, and write it.

    Args:
        subject: the network.
        path: of the model; its card is written beside it.
        runtime: the one that has to agree, and that the card shows.
        pack: store weights of at most four bits in four.
        data_root: folder of the image sets.

    Raises:
        ExportError: a layer cannot be exported, or the runtime does not agree; nothing is written.
    """
    exported = to_graph(subject)
    model = exported.packed if pack else exported.model
    sessions, checks = {}, {}
    for name in sorted(RUNTIMES, key=lambda name: name != runtime):
        try:
            module = get_runtime(name)
        except RuntimeMissingError:
            if name == runtime:
                raise
            continue
        sessions[name] = module.load(model, threads=0)
        integers, floats = on_integers(sessions[name], exported.layers)
        checks[name] = RuntimeCheck(module.version(), integers, floats)
    images = open_images(subject.dataset, "test", root=data_root)
    agreement = compare(
        subject.network,
        sessions,
        batches(images, subject.view, some_images(images, CHECKED_IMAGES)),
        classes=subject.classes is not None,
    )
    if not agreement.passes(runtime):
        raise ExportError(
            f"{runtime} agrees with the simulation at {agreement.graphs[runtime]:.4f} "
            f"({agreement.measure}, {agreement.images} test images), below the noise floor "
            f"{agreement.floor:.4f}; nothing was written. Try another runtime ({', '.join(checks)}), or "
            "more bits."
        )
    card = model_card(
        path.name,
        subject,
        file_bytes=len(model),
        runtime=runtime,
        agreement=agreement,
        checks=checks,
    )
    return ExportedFile(path, write_model(path, model, card), len(model), agreement, checks)
