"""A signal in chosen iterations of a detector's training, by either engine."""

import os
import signal

from lowbit.training.seeding import seed_everything

SEEDED_BY = {
    "torchvision": "lowbit.detection.with_torchvision.engine.seed_everything",
    "detectron2": "lowbit.detection.with_detectron2.hooks.seed_everything",
}


def signal_in(patch, engine, iterations, signum=signal.SIGTERM) -> list[int]:
    """Send this process a signal when one of these iterations, counted from 1, begins, each once.

    Returns:
        the iterations that began, as they do.
    """
    left, begun = list(iterations), []

    def seed_and_signal(seed, iteration):
        seed_everything(seed, iteration)
        begun.append(iteration)
        if iteration in left:
            left.remove(iteration)
            os.kill(os.getpid(), signum)

    patch.setattr(SEEDED_BY[engine], seed_and_signal)
    return begun
