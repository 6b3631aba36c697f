"""The Detectron2 engine: every module that imports Detectron2."""
