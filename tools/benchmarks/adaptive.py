"""Cases of `lowbit-bench bench qat`: what training four bit-widths at once costs over training one."""

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

from lowbit.backbones import create_backbone
from lowbit.quant import calibrate, quantize, set_precision
from lowbit.quant.adaptive import JointStep, make_adaptive, rescale_head
from lowbit.tools.benchmarks.timing import Case, ratio_rows
from lowbit.transfer.finetuning.training import Network

BITS = (8, 6, 4, 2)
JOINT = "CoQuant, 8, 6, 4 and 2 bits"
SINGLE = "one precision"
STEP_TARGET, MEMORY_TARGET = 4.2, 1.3


def adaptive_cases(quick: bool = False) -> Iterator[Case]:
    """Yield the rows: seconds of a step and peak memory, over a step at one precision."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = "resnet10_slim" if quick else "resnet18_cifar"
    size = 512 if device == "cuda" else 32
    steps = {SINGLE: single_step(name, size, device), JOINT: joint_step(name, size, device)}
    note = f"{name}, batch {size}, {device}"
    rounds = 3 if quick or device == "cpu" else 20
    yield from ratio_rows(
        {what: _timed(step, device) for what, step in steps.items()},
        SINGLE,
        rounds,
        {JOINT: STEP_TARGET},
        note=note,
    )
    peaks = {what: peak_bytes(step, device) for what, step in steps.items()}
    megabytes = ", ".join(f"{peak / 2**20:.0f} MiB" for peak in peaks.values())
    ratio = peaks[JOINT] / peaks[SINGLE]
    case = f"peak memory of {JOINT} ({note}: {megabytes})"
    yield Case(case, None, SINGLE, None, ratio, MEMORY_TARGET)


def single_step(name: str, size: int, device: str) -> Callable[[], None]:
    """Return a training step at 4w4a, as quantization-aware training takes it."""
    network, x, y = _network(name, size, device)
    set_precision(network, "4w4a")
    return _step(network, lambda: F.cross_entropy(network(x), y).backward())


def joint_step(name: str, size: int, device: str) -> Callable[[], None]:
    """Return a CoQuant step: teachers chosen, a tenth of the first block's passes swapped."""
    network, x, y = _network(name, size, device)
    make_adaptive(network, BITS)
    joint = JointStep(network, BITS)
    generator = torch.Generator().manual_seed(0)
    return _step(network, lambda: joint(x, y, progress=0.0, generator=generator))


def _network(name: str, size: int, device: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    backbone = create_backbone(name)
    head = torch.randn(10, backbone.num_features) * 0.01, torch.zeros(10)
    network = quantize(Network(backbone, *head).to(device), "coquant")
    x = torch.randn(size, 3, 32, 32, device=device)
    calibrate(network, [x])
    rescale_head(network)
    return network.train(), x, torch.randint(10, (size,), device=device)


def _step(network: nn.Module, gradients: Callable[[], object]) -> Callable[[], None]:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        gradients()
        optimizer.step()

    step.kept = lambda: sum(  # what stays in memory between steps, without gradients
        tensor.nbytes
        for tensors in (network.state_dict(), *optimizer.state.values())
        for tensor in tensors.values()
        if tensor is not None
    )
    return step


def _timed(step: Callable[[], None], device: str) -> Callable[[], None]:
    def run() -> None:
        step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def peak_bytes(step: Callable[[], None], device: str) -> int:
    """Return the peak memory of tensors in a step."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before + step.kept()
    with torch.profiler.profile(profile_memory=True) as profile:
        step()
    events = profile.profiler.kineto_results.events()
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()  # negative when memory is freed
            peak = max(peak, now)
    return peak + step.kept()
