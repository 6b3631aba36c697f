"""COCO's and VOC's metrics in arrays: matching, precision and recall, resampling of images. Needs no torch."""
