"""Other projects' tensors, where renaming is not enough: joined, split, reshaped into those of timm's networks."""
