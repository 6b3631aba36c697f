"""Everything that imports Detectron2."""
