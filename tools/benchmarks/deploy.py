"""Cases of `lowbit-bench bench deploy`: exported graphs over the same network's fp32, in each runtime.

Every ratio compares graphs that run in turns in one process, on one thread. Rows without times are counts:
convolutions that a runtime computes in floating point, and images (%) whose class differs.
"""

import copy
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.backbones import create_backbone
from lowbit.data import load, normalization, normalize
from lowbit.deploy.agreement import compare
from lowbit.export.onnx_export import Exported, export_network
from lowbit.export.runtime import RUNTIMES, Runtime, Session, get_runtime, on_integers
from lowbit.quant import calibrate, quantize
from lowbit.tools.benchmarks.timing import Case, ratio_rows

EXACT = [(policy, bits) for policy in ("ssql", "lsq") for bits in ("8w8a", "4w4a")]
FULL = [("ssql-int8", "8w8a"), ("lsq-int8", "8w8a")]
COMPARED = (*EXACT, ("ssql", "3w3a"), ("lsq", "3w3a"), *FULL)
BATCHES = (1, 8)
# Targets: time over fp32, and how many of the 20 convolutions may be left in floating point.
TARGETS = {("openvino", p, b): (0.36, 1) for p, b in EXACT}
TARGETS |= {("onnxruntime", p, b): (0.33, 0) for p, b in FULL}
PEER_TARGET = 1.05

_CALIBRATION = 32  # images, ours and the peers'


@dataclass(frozen=True)
class Subject:
    """A trained network and images of it: to calibrate (N, 3, S, S), and to compare."""

    network: nn.Module
    calibration: Tensor
    images: Tensor


def cases(quick: bool = False) -> Iterator[Case]:
    """Yield the rows of the table; the graphs of a runtime and a batch size are timed in turn."""
    rounds, images = (3, 8) if quick else (31, 100)
    subject = trained_network(steps=3 if quick else 60, side=64 if quick else 224, images=images)
    full = export_network(subject.network, subject.calibration[:2])
    graphs = {
        (policy, bits): (network := low_bit(subject, policy, bits), export(network, subject))
        for policy, bits in COMPARED
    }
    runtimes = [get_runtime(name) for name in RUNTIMES]
    with tempfile.TemporaryDirectory() as folder:
        peers = dict(peer_models(full.model, subject, Path(folder)))
        for runtime in runtimes:
            models: dict[str, bytes | Path] = {"fp32": full.model}
            models |= {f"{p} {b}": graphs[p, b][1].model for p, b in (*EXACT, *FULL)}
            models |= {
                name: model for (where, name), model in peers.items() if where == runtime.NAME
            }
            sessions = {name: runtime.load(model, threads=1) for name, model in models.items()}
            yield from _timed(runtime, sessions, subject, rounds)
            yield from _in_float(runtime, sessions, graphs, subject.network)
            yield from _changed(runtime, sessions, subject.images)
    for (policy, bits), (network, exported) in graphs.items():
        yield from _disagreement(f"{policy} {bits}", network, exported, runtimes, subject.images)


def _timed(
    runtime: Runtime, sessions: Mapping[str, Session], subject: Subject, rounds: int
) -> Iterator[Case]:
    peer = next((name for name in sessions if name.startswith("NNCF")), None)
    for batch in BATCHES:
        x = np.ascontiguousarray(subject.calibration[:batch].numpy())
        variants = {name: partial(session.run, x) for name, session in sessions.items()}
        note = f"{runtime.NAME}, {batch} x {x.shape[-1]} px"
        limits = {f"{p} {b}": t[0] for (where, p, b), t in TARGETS.items() if where == runtime.NAME}
        yield from ratio_rows(variants, "fp32", rounds, limits, note=note)
        if peer is not None:
            ours: dict[str, Callable[[], object]] = {
                f"{p} {b}": variants[f"{p} {b}"] for p, b in (*EXACT, *FULL) if b == "8w8a"
            }
            limits = dict.fromkeys(ours, PEER_TARGET)
            ours[peer] = variants[peer]
            yield from ratio_rows(ours, peer, rounds, limits, note=note)


def _in_float(runtime: Runtime, sessions, graphs, network: nn.Module) -> Iterator[Case]:
    """Count convolutions that a runtime computes in floating point."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    for policy, bits in (*EXACT, *FULL):
        layers = graphs[policy, bits][1].layers
        integers, _ = on_integers(sessions[f"{policy} {bits}"], layers)
        left = sum(name not in integers for name in names)
        target = TARGETS.get((runtime.NAME, policy, bits), (None, None))[1]
        case = f"{policy} {bits}, convolutions in floating point ({runtime.NAME})"
        yield Case(case, None, f"of {len(names)}", None, left, target)


def _changed(runtime: Runtime, sessions: Mapping[str, Session], images: Tensor) -> Iterator[Case]:
    """Count images whose class is another than in full precision: what quantizing costs, ours and the peers'."""
    found = {name: _classes(session, images) for name, session in sessions.items()}
    for name, classes in found.items():
        if name != "fp32":
            other = 100 * float((classes != found["fp32"]).mean())
            yield Case(f"{name}, % other classes ({runtime.NAME})", None, "fp32", None, other)


def _disagreement(
    name: str, network: nn.Module, exported: Exported, runtimes: list[Runtime], images: Tensor
) -> Iterator[Case]:
    """Count images that a graph and the simulation tell apart; the target is the simulation's own noise."""
    sessions = {r.NAME: r.load(exported.model, threads=1) for r in runtimes}
    found = compare(network, sessions, images.split(8), classes=True)
    for runtime, agreement in found.graphs.items():
        case = f"{name}, % other classes ({runtime})"
        floor = 100 * (1 - found.floor)
        yield Case(case, None, "simulation", None, 100 * (1 - agreement), floor)


def _classes(session: Session, images: Tensor) -> np.ndarray:
    return np.concatenate([session.run(x.numpy())[0].argmax(1) for x in images.split(8)])


# the network ---------------------------------------------------------------------------------------


def trained_network(*, steps: int, side: int, images: int) -> Subject:
    """Train ResNet-18 on digits for some steps, at 64 pixels, and fit it to images of `side` pixels."""
    torch.manual_seed(0)
    train, test = load("digits", "train"), load("digits", "test")
    network = nn.Sequential(create_backbone("resnet18"), nn.Linear(512, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    network.train()
    for _ in range(steps):
        chosen = torch.randint(len(train.images), (32,))
        loss = F.cross_entropy(network(_enlarged(train.images[chosen], 64)), train.labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    calibration = _enlarged(train.images[:_CALIBRATION], side)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:  # statistics of the size that is measured
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        for x in calibration.split(8):
            network(x)
    return Subject(network.eval(), calibration, _enlarged(test.images[:images], side))


def _enlarged(images: Tensor, side: int) -> Tensor:
    x = normalize(images, *normalization("digits"))
    return F.interpolate(x, (side, side), mode="bilinear")


def low_bit(subject: Subject, policy: str, bits: str) -> nn.Module:
    """Return a calibrated copy of the network."""
    network = quantize(copy.deepcopy(subject.network), policy, bits)
    calibrate(network, subject.calibration.split(8))
    return network.eval()


def export(network: nn.Module, subject: Subject) -> Exported:
    """Return the graph of a network."""
    return export_network(network, subject.calibration[:2])


# peers ---------------------------------------------------------------------------------------------


def peer_models(
    model: bytes, subject: Subject, folder: Path
) -> Iterator[tuple[tuple[str, str], Path]]:
    """Yield models that the runtimes' own tools quantize to 8 bits: ((runtime, name), file).

    A tool that is not installed is left out with a line.
    """
    source = folder / "fp32.onnx"
    source.write_bytes(model)
    images = [np.ascontiguousarray(x.numpy()) for x in subject.calibration.split(8)]
    for runtime, name, make in (
        ("onnxruntime", "quantize_static int8", by_onnxruntime),
        ("openvino", "NNCF int8", by_nncf),
    ):
        try:
            yield (runtime, name), make(source, images)
        except ImportError as error:
            print(f"({name} is left out: {error})", flush=True)


def by_onnxruntime(source: Path, images: list[np.ndarray]) -> Path:
    """Quantize by `onnxruntime.quantization.quantize_static`, one scale a channel."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            x = next(self.left, None)
            return None if x is None else {"images": x}

    prepared, target = source.with_name("prepared.onnx"), source.with_name("static.onnx")
    quant_pre_process(source, prepared)
    logging.getLogger().setLevel(logging.WARNING)  # the tool's advice
    quantization.quantize_static(prepared, target, Reader(), per_channel=True)
    return target


def by_nncf(source: Path, images: list[np.ndarray]) -> Path:
    """Quantize by NNCF's `quantize`, with its defaults."""
    import nncf
    import openvino as ov

    quantized = nncf.quantize(ov.Core().read_model(source), nncf.Dataset(images))
    target = source.with_name("nncf.xml")
    ov.save_model(quantized, target, compress_to_fp16=False)
    return target
