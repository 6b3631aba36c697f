"""Views of images: centre crops, augmented views, streams of batches."""
