"""What every training loop needs: seeds, optimizers, schedules, resumable state, logs, stopping."""
