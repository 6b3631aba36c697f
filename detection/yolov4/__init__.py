"""YOLOv4's neck, head, losses and training images (Bochkovskiy et al. 2020), for both engines."""
