"""Protocol linear-exact: linear evaluation by logistic regression solved to its optimum."""

import logging
from typing import TYPE_CHECKING

import torch
from torch import nn

from lowbit.common.compute_cost import Work
from lowbit.data import Images
from lowbit.training.job_state import Workspace
from lowbit.transfer.features.extract import frozen_features
from lowbit.transfer.probes.choose_on_val import choose_on
from lowbit.transfer.probes.logistic_probe import Axes, fit_logistic, tolerance_of
from lowbit.transfer.probes.sgd_probe import Classifier
from lowbit.transfer.recipe.compute_cost import CostInputs, cost_on_features
from lowbit.transfer.recipe.protocol_registry import Fitted, Parts, protocol

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe

_logger = logging.getLogger(__name__)


def _cost(job: CostInputs) -> Work:
    evaluations = (
        100  # passes over the features until the gradient vanishes, reported in the details
    )
    return cost_on_features(
        job, len(job.recipe.l2_strengths) * evaluations * 2 * job.train * job.head
    )


@protocol(cost=_cost, options=("l2_strengths",), chooses="l2_strengths")
def linear_exact(
    backbone: nn.Module,
    train: Images,
    *,
    recipe: "Recipe",
    workspace: Workspace,
    device: torch.device,
    val: Images | None = None,
) -> Fitted:
    """Quantize and calibrate first, then solve for the best classifier per precision.

    It minimizes mean cross-entropy + lambda / 2 ||W||^2 on the central view's features, centred and
    divided by their root mean square (`lowbit.transfer.probes.logistic_probe`); the lambda with the best top-1 on `val`
    is kept, the larger on ties. There is no learning rate, order or seed: a device or a
    library changes the result by less than the tolerance of the solver.
    """
    workspace.resume()
    features = frozen_features(backbone, train, recipe=recipe, workspace=workspace, device=device)
    strengths = sorted(recipe.l2_strengths, reverse=True)
    lambdas = torch.tensor(strengths, dtype=torch.float64)
    tolerance = tolerance_of(lambdas)
    heads, solver = {}, {}
    for precision in recipe.precisions:
        found = fit_logistic(
            Axes.of(features(train, precision).to(device)),
            train.labels,
            len(train.classes),
            lambdas,
        )
        heads[precision] = list(zip(found.weight.float(), found.bias.float(), strict=True))
        converged = (found.gradient_norm.cpu() <= tolerance).tolist()
        solver[str(precision)] = {
            "loss": found.loss.tolist(),
            "gradient_norm": found.gradient_norm.tolist(),
            "evaluations": found.evaluations.tolist(),
            "converged": converged,
        }
        say = _logger.info if all(converged) else _logger.warning
        say(
            "%s: gradient norms up to %.1e after %d passes over the features",
            precision,
            found.gradient_norm.max(),
            found.evaluations.max(),
        )
    kept, choice = choose_on(val, features, heads, setting="l2_strengths", values=strengths)
    return Fitted(
        predict=Classifier(features, kept),
        details={
            "calibration": features.calibration,
            "solver": {"l2_strengths": strengths, "tolerance": tolerance.tolist(), **solver},
            **choice,
        },
        parts=Parts(heads=kept, calibrated=backbone),
    )
