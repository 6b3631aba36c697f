"""Average precision, its intervals, and pictures of detections."""
