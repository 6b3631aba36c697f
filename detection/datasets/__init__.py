"""Detection data sets: COCO and VOC files, folders of your own, scenes of digits."""
