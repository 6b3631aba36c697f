"""Detection data sets: COCO, VOC, your own folders, and generated digit scenes."""
