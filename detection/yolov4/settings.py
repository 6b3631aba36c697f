"""What a recipe sets of a YOLOv4 detector."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from lowbit.common.input_files.strict_model import StrictModel

ANCHORS = 9  # three at each of three levels

_Side = Annotated[float, Field(gt=0)]
_Shapes = tuple[tuple[_Side, _Side], ...]


class YOLOv4Settings(StrictModel):
    """Anchors and training images of a YOLOv4 detector; all else is in the recipe's usual fields."""

    anchors: Literal["original", "kmeans"] | _Shapes = Field(
        "original",
        description="YOLOv4's own nine; k-means of the training boxes; or nine [width, height], pixels",
    )
    mosaic: float = Field(
        0.5, ge=0, le=1, description="share of training images that are mosaics of four"
    )
    color_jitter: bool = Field(
        True, description="change hue, saturation and brightness of training images"
    )

    @field_validator("anchors")
    @classmethod
    def _nine(cls, value: str | _Shapes) -> str | _Shapes:
        if not isinstance(value, str) and len(value) != ANCHORS:
            raise ValueError(
                f"anchors lists {len(value)} shapes; nothing was trained. Give nine [width, height], "
                "three for each level from fine to coarse, or original, or kmeans."
            )
        return value
