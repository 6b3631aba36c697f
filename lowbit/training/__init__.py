"""Building blocks of training loops: seeds, optimizers, schedules, state, logs, stopping."""
