"""Protocol knn: k nearest neighbours on features of the frozen, quantized backbone."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lowbit.common.compute_cost import Work
from lowbit.data import Images
from lowbit.training.job_state import Workspace
from lowbit.transfer.features.extract import frozen_features
from lowbit.transfer.probes.knn_vote import vote
from lowbit.transfer.recipe.compute_cost import CostInputs, cost_on_features
from lowbit.transfer.recipe.protocol_registry import Fitted, protocol

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe


def _cost(job: CostInputs) -> Work:
    return cost_on_features(job, 2 * job.scored * job.train * job.size.features)


@protocol(cost=_cost, options=("knn_k", "knn_temperature"))
def knn(
    backbone: nn.Module,
    train: Images,
    *,
    recipe: "Recipe",
    workspace: Workspace,
    device: torch.device,
) -> Fitted:
    """Quantize and calibrate first, then let the nearest training images vote at each precision.

    Features of the central view, L2-normalized; the `knn_k` training images of the largest cosine
    similarity s vote for their classes with weight exp(s / `knn_temperature`) (Wu et al. 2018).
    Training and scored images use the same precision. k = 20 and T = 0.07 are DINO's;
    InstDisc uses 200 and 0.07, SimSiam's descendants 200 and 0.1.
    """
    workspace.resume()
    features = frozen_features(backbone, train, recipe=recipe, workspace=workspace, device=device)

    def predict(images: Images) -> dict[str, Tensor]:
        return {
            str(precision): vote(
                features(images, precision),
                features(train, precision),
                train.labels,
                num_classes=len(train.classes),
                k=recipe.knn_k,
                temperature=recipe.knn_temperature,
                device=device,
            )
            for precision in recipe.precisions
        }

    details = {"calibration": features.calibration}
    return Fitted(predict=predict, networks=(backbone,), details=details)
