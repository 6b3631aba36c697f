"""Pixels as a network sees them: centre crops, augmented views, streams of batches."""
