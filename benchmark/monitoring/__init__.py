"""Monitor a running sweep: status, progress bar, messages, board updates."""
