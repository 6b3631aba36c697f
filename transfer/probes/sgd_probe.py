"""Linear classifiers trained by SGD, LARS or LARC, for several precisions and learning rates in one batched problem."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lowbit.data import Images
from lowbit.quant import Precision
from lowbit.training.divergence import check_finite
from lowbit.training.job_state import Workspace
from lowbit.training.lars import clipped_ratio, trust_ratio
from lowbit.training.seeding import minibatches
from lowbit.training.stopping import stop_request

ETA = (
    1e-3  # trust coefficient of LARS and LARC, as `lowbit.training.lars` and SimSiam's code have it
)
_ROWS = 2**16  # images classified at a time


def initial_classifier(
    num_features: int, num_classes: int, *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw a weight (C, D) from N(0, 0.01^2) and a bias (C,) of zero (MoCo's and SimSiam's fc)."""
    weight = torch.empty(num_classes, num_features).normal_(std=0.01, generator=generator)
    return weight, torch.zeros(num_classes)


class LinearFit:
    """Train L classifiers on each of P sets of features of the same images by SGD.

    Every classifier sees the same minibatches in the same order; the operations of `nn.Linear`,
    `F.cross_entropy` and `torch.optim.SGD`, or of `lowbit.training.lars`, are done for all of them with
    one batched product forward and one backward. The gradient of the mean cross-entropy is known,
    (softmax(x W' + b) - onehot(y)) / B, so no graph is built.

    The object holds weight (P, L, C, D), bias (P, L, C) and their momentum.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        *,
        momentum: float,
        weight_decay: float,
        optimizer: str = "sgd",
    ) -> None:
        self.weight, self.bias, self.optimizer = weight, bias, optimizer
        self.momentum, self.weight_decay = momentum, weight_decay
        self._weight_velocity = torch.zeros_like(weight)
        self._bias_velocity = torch.zeros_like(bias)

    def step(self, x: Tensor, y: Tensor, *, lrs: Sequence[float]) -> Tensor:
        """Take one step on features x (P, B, D) and labels y (B,); return the losses (P, L)."""
        P, L, C, D = self.weight.shape
        index = y.expand(P, L, 1, -1)
        weight, velocity = (t.view(P, L * C, D) for t in (self.weight, self._weight_velocity))
        # Images last: torch's softmax takes several times as long over ten classes that lie together.
        logits = torch.baddbmm(self.bias.view(P, L * C, 1), weight, x.mT).view(P, L, C, -1)
        log_p = F.log_softmax(logits, dim=2)
        loss = log_p.gather(2, index).mean(dim=(2, 3)).neg_()
        residual = log_p.exp_()
        residual.scatter_add_(2, index, residual.new_tensor(-1.0).expand_as(index))
        residual = residual.div_(len(y)).view(P, L * C, -1)  # d loss / d logits
        if self.optimizer == "sgd":  # v <- m v + (g + wd w), w <- w - lr v
            velocity.baddbmm_(residual, x, beta=self.momentum)
            self._bias_velocity.mul_(self.momentum).add_(residual.sum(dim=2).view(P, L, C))
            if self.weight_decay:
                self._weight_velocity.add_(self.weight, alpha=self.weight_decay)
                self._bias_velocity.add_(self.bias, alpha=self.weight_decay)
        else:
            grads = (residual @ x).view(P, L, C, D), residual.sum(dim=2).view(P, L, C)
            rates = residual.new_tensor(lrs)
            self._accumulate(self._weight_velocity, self.weight, grads[0], rates)
            self._accumulate(self._bias_velocity, self.bias, grads[1], rates)
        for rate, lr in enumerate(lrs):
            self.weight[:, rate].add_(self._weight_velocity[:, rate], alpha=-lr)
            self.bias[:, rate].add_(self._bias_velocity[:, rate], alpha=-lr)
        return loss

    def _accumulate(self, velocity: Tensor, w: Tensor, g: Tensor, lrs: Tensor) -> None:
        """v <- m v + r (g + wd w), with the ratio r of each classifier; (P, L, ...)."""
        decay, dims = self.weight_decay, tuple(range(2, w.dim()))

        def norm(t: Tensor) -> Tensor:
            return torch.linalg.vector_norm(t, dim=dims, keepdim=True)

        if self.optimizer == "larc":
            size, slope, rates = norm(w), norm(g), lrs.view(-1, *[1] * len(dims))
            ratio = clipped_ratio(size, slope, decay, ETA, rates)
            decayed = g + decay * ((size > 0) & (slope > 0)).to(g.dtype) * w
        elif w.dim() == 4:  # lars: a weight
            decayed = g + decay * w
            ratio = trust_ratio(norm(w), norm(decayed), ETA)
        else:  # lars: a bias takes plain steps without decay
            decayed, ratio = g, 1.0
        velocity.mul_(self.momentum).add_(decayed * ratio)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the next step depends on."""
        return {
            "weight": self.weight,
            "bias": self.bias,
            "weight_velocity": self._weight_velocity,
            "bias_velocity": self._bias_velocity,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned, from any device."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])


@torch.no_grad()
def fit_linear(
    features: Sequence[Sequence[Tensor]],
    labels: Tensor,
    initial: tuple[Tensor, Tensor],
    *,
    epochs: int,
    batch_size: int,
    learning_rates: Callable[[int], Sequence[float]],
    momentum: float,
    weight_decay: float,
    optimizer: str = "sgd",
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[int, Sequence[float], Tensor], None] = lambda epoch, lrs, losses: None,
    workspace: Workspace | None = None,
    state: dict[str, Any] | None = None,
) -> tuple[Tensor, Tensor]:
    """Fit a classifier for each precision and rate; return weight (P, L, C, D) and bias (P, L, C).

    A fit takes minutes, so its state is saved when a signal stops it, and at no other time.

    Args:
        features: views, each P times (N, D), on any device; epoch e trains on view e mod K.
        labels: (N,).
        initial: weight (C, D) and bias (C,) from which every classifier starts.
        learning_rates: the L rates of an epoch, counted from 0.
        optimizer: "sgd", "lars" or "larc", with a trust coefficient of `ETA`.
        generator: draws the order of the images, on the CPU.
        device: to compute on.
        on_epoch: called with the epoch, its rates and the mean losses (P, L).
        workspace: where a stop signal saves the state; None: signals are not listened to.
        state: of the stopped fit to continue, bit for bit.

    Raises:
        FloatingPointError: at some precision no rate has a finite loss.
        Preempted: a stop signal came; the state was saved after the current step.
    """
    P, L = len(features[0]), len(learning_rates(0))
    weight, bias = (t.to(device).repeat(P, L, *[1] * t.dim()) for t in initial)
    rule = {"momentum": momentum, "weight_decay": weight_decay, "optimizer": optimizer}
    fit = LinearFit(weight, bias, **rule)
    features = _within_reach(features, torch.device(device))
    labels = labels.to(device)
    epoch, losses = 0, []
    if state is not None:
        epoch, losses = state["epoch"], list(state["losses"].to(device))
        fit.load_state_dict(state["fit"])
        generator.set_state(state["order"])
    with stop_request() if workspace else nullcontext() as stop:
        while epoch < epochs:
            order = generator.get_state()
            view, lrs = features[epoch % len(features)], learning_rates(epoch)
            batches = minibatches(len(labels), batch_size, generator, device=view[0].device)
            for batch in batches[len(losses) :]:
                x = _rows(view, batch).to(device)
                losses.append(fit.step(x, labels[batch.to(device)], lrs=lrs))
                if stop and stop.reached():
                    break
            _check_finite(torch.stack(losses), first_step=epoch * len(batches), lrs=lrs)
            if len(losses) == len(batches):
                on_epoch(epoch, lrs, torch.stack(losses).mean(dim=0))
                epoch, losses, order = epoch + 1, [], generator.get_state()
            if stop and stop.reached():
                done = torch.stack(losses) if losses else torch.empty(0)
                workspace.save(epoch=epoch, losses=done, fit=fit.state_dict(), order=order)
                steps = f" and {len(losses)} steps" * bool(losses)
                place = f"after {epoch} of {epochs} epochs{steps}"
                raise stop.preempted(place, workspace.state_path)
    return fit.weight, fit.bias


def _check_finite(losses: Tensor, *, first_step: int, lrs: Sequence[float]) -> None:
    """Raise if one of the losses (steps, P, L) is not finite at all rates of a precision."""
    finite = losses.isfinite()
    others = finite.any(dim=2, keepdim=True) & ~finite  # a diverging rate beside a sound one
    told = losses.masked_fill(others, 0.0).sum(dim=(1, 2))
    check_finite(told, first_step=first_step, lr=min(lrs), what="linear classifier")


def _within_reach(
    features: Sequence[Sequence[Tensor]], device: torch.device
) -> Sequence[Sequence[Tensor]]:
    """Move features to a GPU with room for all of them; otherwise they are moved batch by batch."""
    if device.type != "cuda":
        return features
    size = sum(x.nbytes for view in features for x in view)
    if size > torch.cuda.mem_get_info(device)[0] // 2:
        return features
    return [torch.stack([x.to(device) for x in view]) for view in features]


def _rows(view: Sequence[Tensor], batch: Tensor) -> Tensor:
    """Return the images of a batch at every precision, (P, B, D)."""
    if isinstance(view, Tensor):
        return view.index_select(1, batch)
    return torch.stack([x.index_select(0, batch) for x in view])


class Classifier:
    """Predict classes at any of its precisions with one linear head for each.

    Args:
        features: maps images and a precision to features (N, D).
        heads: precision -> weight (C, D) and bias (C,), never quantized.
    """

    def __init__(
        self,
        features: Callable[[Images, Precision], Tensor],
        heads: dict[Precision, tuple[Tensor, Tensor]],
    ) -> None:
        self.features, self.heads = features, heads

    @torch.no_grad()
    def __call__(self, images: Images) -> dict[str, Tensor]:
        """Return the predicted classes (N,) of images by precision's name, on the CPU."""
        return {
            str(precision): classify(self.features(images, precision), *head)
            for precision, head in self.heads.items()
        }

    @torch.no_grad()
    def logits(self, images: Images) -> dict[str, Tensor]:
        """Return the logits (N, C) of images by precision's name, on the CPU."""
        return {
            str(precision): torch.cat(
                [
                    F.linear(x.to(head[0].device), *head).float().cpu()
                    for x in self.features(images, precision).split(_ROWS)
                ]
            )
            for precision, head in self.heads.items()
        }


def classify(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the classes (N,), on the CPU, that a linear head predicts from features (N, D)."""
    parts = features.split(_ROWS)
    return torch.cat([F.linear(x.to(weight.device), weight, bias).argmax(1).cpu() for x in parts])
