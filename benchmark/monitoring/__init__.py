"""What a running sweep tells: status, progress bar, messages, a fresh board."""
