"""The torchvision engine: RetinaNet and Faster R-CNN without Detectron2."""
