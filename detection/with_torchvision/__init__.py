"""The torchvision engine: RetinaNet, Faster R-CNN and YOLOv4 without Detectron2."""
