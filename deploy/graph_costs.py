"""What a network's graph costs in a runtime on this machine: bytes, memory, time, layers on integers."""

import itertools
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lowbit.export.latency import QUARTILES, Latency, time_in_turns
from lowbit.export.onnx_export import Exported
from lowbit.export.peak_memory import peak_memory
from lowbit.export.runtime import Runtime, Session, on_integers

BATCHES = (1, 8)
THREADS = {1: "1 thread", 0: "all threads"}


@dataclass(frozen=True)
class FullPrecision:
    """The graph in full precision, which others are timed beside.

    Attributes:
        exported: of any network with the same layers, since its values cost no time.
        sessions: it, loaded for each number of threads.
    """

    exported: Exported
    sessions: Mapping[int, Session]

    @classmethod
    def load(cls, exported: Exported, runtime: Runtime) -> "FullPrecision":
        """Load it."""
        model = exported.model
        return cls(exported, {n: runtime.load(model, threads=n) for n in THREADS})


@dataclass(frozen=True)
class GraphCosts:
    """What a graph costs.

    Attributes:
        file_bytes, packed_bytes: of the model; packed: weights of at most four bits in four.
        memory: bytes that loading and running a batch of one takes at most.
        latencies: by threads and batch size, over full precision.
        integers, floats: names of layers that the runtime computes on integers, and the others.
    """

    file_bytes: int
    packed_bytes: int
    memory: int
    latencies: dict[tuple[int, int], Latency]
    integers: list[str]
    floats: list[str]


def measure_costs(
    exported: Exported,
    session: Session,
    full: FullPrecision,
    runtime: Runtime,
    *,
    layers: Iterable[str],
    images: np.ndarray,
    rounds: int,
) -> GraphCosts:
    """Measure a network's graph beside its own in full precision; FP's own shows the timing's noise.

    Args:
        exported: the network's graph at its precision.
        session: it, loaded for all threads.
        full: the network's in full precision.
        runtime: that runs them.
        layers: names of all convolutions and linear layers of the network.
        images: what is timed, (max(BATCHES), 3, height, width).
        rounds: of timing.
    """
    integers, _ = on_integers(session, exported.layers)
    sessions = {1: runtime.load(exported.model, threads=1), 0: session}
    return GraphCosts(
        file_bytes=len(exported.model),
        packed_bytes=len(exported.packed),
        memory=_memory(exported.model, runtime, images.shape[1:]),
        latencies=dict(_latencies(sessions, full.sessions, images, rounds)),
        integers=integers,
        floats=[name for name in layers if name not in integers],
    )


def product_layers(network: nn.Module) -> list[str]:
    """Return the names of all convolutions and linear layers."""
    kinds = (nn.Conv2d, nn.Linear)
    return [name for name, module in network.named_modules() if isinstance(module, kinds)]


def cost_details(costs: Mapping[str, GraphCosts]) -> dict[str, Any]:
    """Return layers by name and all of every timing, each by precision, in plain types."""
    return {
        "layers": {p: {"integers": c.integers, "floats": c.floats} for p, c in costs.items()},
        "latencies": {
            precision: {
                f"{THREADS[threads]}, batch {batch}": asdict(latency)
                for (threads, batch), latency in each.latencies.items()
            }
            for precision, each in costs.items()
        },
    }


def cost_rows(costs: GraphCosts, precision: str, *, split: str, rounds: int) -> Iterator[dict]:
    """Yield the measurements of a graph's costs."""
    row = Rows(precision, split).row
    yield row("file_bytes", costs.file_bytes, "bytes")
    yield row("packed_bytes", costs.packed_bytes, "bytes")
    yield row("peak_memory", costs.memory, "bytes")
    yield row("integer_layers", len(costs.integers), "layers")
    yield row("layers", len(costs.integers) + len(costs.floats), "layers")
    for (threads, batch), latency in costs.latencies.items():
        place = f"{'all' if threads == 0 else threads}t_b{batch}"
        n = batch * rounds
        yield row(f"latency_{place}", 1e3 * latency.seconds, "ms", n)
        ends = {"low": latency.low, "high": latency.high, "interval": QUARTILES}
        yield row(f"latency_ratio_{place}", latency.ratio, "of FP", n, **ends)


@dataclass(frozen=True)
class Rows:
    """Writes measurements of one precision."""

    precision: str
    split: str

    def row(self, metric: str, value: float, unit: str, n: int = 1, **more: Any) -> dict[str, Any]:
        """Return a measurement on n images."""
        fields = {"metric": metric, "value": float(value), "unit": unit, "n": n}
        return {**fields, "precision": self.precision, "split": self.split, **more}


def _memory(model: bytes, runtime: Runtime, shape: tuple[int, ...]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        return peak_memory(path, runtime.NAME, (1, *shape))


def _latencies(
    sessions: Mapping[int, Session], full: Mapping[int, Session], images: np.ndarray, rounds: int
) -> Iterator[tuple[tuple[int, int], Latency]]:
    for threads, batch in itertools.product(THREADS, BATCHES):
        pair = sessions[threads], full[threads]
        yield (threads, batch), time_in_turns(*pair, images[:batch], rounds=rounds)
