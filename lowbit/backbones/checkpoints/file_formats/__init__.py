"""File formats of checkpoints: bounded before they are unpacked, without running or importing what they name."""
