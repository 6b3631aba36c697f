"""Which image sets there are, where their files are, and how they are split."""
