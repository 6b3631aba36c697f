"""The commands that run one job by itself."""
