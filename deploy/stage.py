"""Run one deploy job: export a job's networks, run them here, and measure what they cost."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lowbit.backbones.costs import backbone_costs
from lowbit.data import Images, image_set, open_images
from lowbit.deploy.agreement import Agreement, batches, compare, predicted, some_images
from lowbit.deploy.export_model import to_graph
from lowbit.deploy.processor import this_processor
from lowbit.deploy.recipe import Recipe
from lowbit.deploy.saturation import SATURATE, products
from lowbit.deploy.subject import Subject, of_job
from lowbit.export.latency import QUARTILES, Latency, time_in_turns
from lowbit.export.peak_memory import peak_memory
from lowbit.export.runtime import Runtime, get_runtime, on_integers
from lowbit.quant import FP, get_policy, set_precision
from lowbit.transfer.scoring.accuracy import INTERVAL, Accuracy, accuracy
from lowbit.transfer.scoring.scored_network import ScoredNetworks

BATCHES = (1, 8)
THREADS = {1: "1 thread", 0: "all threads"}
_PACKED_BITS = 4

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """What was measured at one precision.

    Attributes:
        file_bytes, packed_bytes: of the model; packed: weights of at most four bits in four.
        memory: bytes that loading and running a batch of one takes at most.
        latencies: by threads and batch size.
        integers, floats: names of layers that the runtime computes on integers, and the others.
        agreement: with the simulation.
        accuracy: of the graph's predictions on all test images.
    """

    file_bytes: int
    packed_bytes: int
    memory: int
    latencies: dict[tuple[int, int], Latency]
    integers: list[str]
    floats: list[str]
    agreement: Agreement
    accuracy: Accuracy


def run(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Export and run the networks of a transfer job, precision by precision.

    Returns:
        measurements, costs, checkpoint and details, in plain JSON types.

    Raises:
        FileNotFoundError: the checkpoint, the networks or the images are missing.
        ValueError: the networks are not those that the recipe describes, or a layer has no integer form.
        ImportError: the runtime is not installed.
    """
    runtime = get_runtime(recipe.runtime)
    networks = ScoredNetworks(recipe.networks)
    _require_described(recipe, networks)
    images = open_images(recipe.dataset, "test", root=recipe.data_root)
    found = {
        precision: _measure(of_job(networks, precision, recipe.checkpoint), images, runtime, recipe)
        for precision in recipe.precisions
    }
    caution = products(recipe.runtime) == SATURATE
    if caution:
        _logger.warning(
            "Sums of 8-bit products saturate in %s on this processor: its int8 results may be wrong.",
            recipe.runtime,
        )
    facts = networks.facts
    return {
        "measurements": [
            row
            for precision, each in found.items()
            for row in _rows(each, str(precision), len(images), recipe)
        ],
        "costs": backbone_costs(
            facts.architecture, facts.policy, recipe.precisions, image_size=facts.image_size
        ),
        "checkpoint": {"architecture": facts.architecture, "sha256": facts.checkpoint_sha256},
        "details": {
            "processor": asdict(this_processor()),
            "products": products(recipe.runtime),
            "layers": {
                str(precision): {"integers": each.integers, "floats": each.floats}
                for precision, each in found.items()
            },
            "latencies": {
                str(precision): {
                    f"{THREADS[threads]}, batch {batch}": asdict(latency)
                    for (threads, batch), latency in each.latencies.items()
                }
                for precision, each in found.items()
            },
            "compared_images": next(iter(found.values())).agreement.images,
        },
    }


def process_group() -> AbstractContextManager[None]:
    """Do nothing: a deploy job has one process."""
    return nullcontext()


def _require_described(recipe: Recipe, networks: ScoredNetworks) -> None:
    facts = networks.facts
    same = {
        "dataset": recipe.dataset == facts.dataset,
        "image_size": recipe.image_size == facts.image_size,
        "policy": get_policy(recipe.policy).fingerprint == get_policy(facts.policy).fingerprint,
    }
    other = [name for name, equal in same.items() if not equal]
    if other:
        raise ValueError(
            f"{networks.path} holds networks of another {' and '.join(other)} than the recipe; nothing was "
            "measured. Correct the recipe, or name the networks that it describes."
        )


def _measure(subject: Subject, images: Images, runtime: Runtime, recipe: Recipe) -> Measured:
    exported = to_graph(subject)
    packs = subject.precision.weight_bits <= _PACKED_BITS
    packed = to_graph(subject, pack=True) if packs else exported
    session = runtime.load(exported.model, threads=0)
    integers, _ = on_integers(session, exported.integers.layers)
    agreement = compare(
        subject.network,
        {runtime.NAME: session},
        batches(images, subject.view, some_images(images, recipe.agreement_images)),
        classes=True,
    )
    classes = predicted(session, batches(images, subject.view))
    measured = Measured(
        file_bytes=len(exported.model),
        packed_bytes=len(packed.model),
        memory=_memory(exported.model, subject, runtime),
        latencies=dict(_latencies(exported.model, subject, runtime, recipe.rounds)),
        integers=integers,
        floats=[name for name in _layers(subject.network) if name not in integers],
        agreement=agreement,
        accuracy=accuracy(classes, images.labels, len(images.classes)),
    )
    _logger.info(
        "%s: %.1f kB, %d of %d layers on integers, top-1 %.2f %%, agreement %.4f (noise floor %.4f)",
        subject.precision,
        measured.file_bytes / 1e3,
        len(integers),
        len(integers) + len(measured.floats),
        measured.accuracy.top1,
        agreement.graphs[runtime.NAME],
        agreement.floor,
    )
    return measured


def _layers(network: nn.Module) -> list[str]:
    kinds = (nn.Conv2d, nn.Linear)
    return [name for name, module in network.named_modules() if isinstance(module, kinds)]


def _memory(model: bytes, subject: Subject, runtime: Runtime) -> int:
    side = subject.view.size
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        return peak_memory(path, runtime.NAME, (1, 3, side, side))


def _latencies(
    model: bytes, subject: Subject, runtime: Runtime, rounds: int
) -> Iterator[tuple[tuple[int, int], Latency]]:
    """Time a graph against the same network's in full precision; FP's own shows the timing's noise."""
    full = model if subject.precision == FP else _in_full_precision(subject)
    side = subject.view.size
    drawn = np.random.default_rng(0).standard_normal((max(BATCHES), 3, side, side), np.float32)
    for threads in THREADS:
        session, reference = (runtime.load(each, threads=threads) for each in (model, full))
        for batch in BATCHES:
            yield (threads, batch), time_in_turns(session, reference, drawn[:batch], rounds=rounds)


def _in_full_precision(subject: Subject) -> bytes:
    set_precision(subject.network, FP)
    model = to_graph(replace(subject, precision=FP)).model
    set_precision(subject.network, subject.precision)
    return model


def _rows(found: Measured, precision: str, images: int, recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Yield the measurements of a precision."""

    def row(metric: str, value: float, unit: str, n: int = 1, **more: Any) -> dict[str, Any]:
        fields = {"metric": metric, "value": float(value), "unit": unit, "n": n}
        return {**fields, "precision": precision, "split": "test", **more}

    score, agreement = found.accuracy, found.agreement
    for metric in image_set(recipe.dataset).metrics:
        low, high = score.interval(metric)
        ends = {"low": low, "high": high, "interval": INTERVAL}
        yield row(metric, getattr(score, metric), "%", images, stderr=score.stderr(metric), **ends)
    yield row("file_bytes", found.file_bytes, "bytes")
    yield row("packed_bytes", found.packed_bytes, "bytes")
    yield row("peak_memory", found.memory, "bytes")
    total = len(found.integers) + len(found.floats)
    yield row("integer_layers", len(found.integers), "layers")
    yield row("layers", total, "layers")
    yield row("agreement", 100 * agreement.graphs[recipe.runtime], "%", agreement.images)
    yield row("noise_floor", 100 * agreement.floor, "%", agreement.images)
    for (threads, batch), latency in found.latencies.items():
        place = f"{'all' if threads == 0 else threads}t_b{batch}"
        n = batch * recipe.rounds
        yield row(f"latency_{place}", 1e3 * latency.seconds, "ms", n)
        ends = {"low": latency.low, "high": latency.high, "interval": QUARTILES}
        yield row(f"latency_ratio_{place}", latency.ratio, "of FP", n, **ends)
