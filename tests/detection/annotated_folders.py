"""Small annotated folders, written by hand: what the readers and checks are tried on."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (40, 30)  # width, height
OBJECT = """\t<object>
\t\t<name>{name}</name>
\t\t<difficult>{difficult}</difficult>
\t\t<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>
\t</object>
"""


def write_image(path: Path, *, size=SIZE, seed: int = 0, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def annotation(number: int, image: int, category: int, box: list[float], **fields) -> dict:
    """Return a complete annotation; a field given as None is left out."""
    entry = {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "area": 0.75 * box[2] * box[3],  # a mask's, not the box's
        "iscrowd": 0,
        **fields,
    }
    return {key: value for key, value in entry.items() if value is not None}


def coco_content(annotations: list[dict], *, images=(7, 3), categories=((1, "cat"), (5, "dog"))):
    """Return annotations in COCO's format: of two images out of order, and ids with a gap."""
    return {
        "images": [
            {"id": i, "file_name": f"{i:04d}.png", "width": SIZE[0], "height": SIZE[1]}
            for i in images
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in categories],
    }


def write_coco(folder: Path, part: str, content: dict, *, images: bool = True) -> Path:
    """Write a part as COCO lays it out, with one value a line; return the annotation file."""
    if images:
        for image in content["images"]:
            write_image(folder / part / image["file_name"], seed=image["id"])
    file = folder / "annotations" / f"instances_{part}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1))
    return file


def write_xml(path: Path, objects: list[tuple], *, size=SIZE) -> None:
    """Write a VOC annotation of (name, corners, difficult) objects; size None leaves it out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "<annotation>\n"
    if size is not None:
        text += f"\t<size><width>{size[0]}</width><height>{size[1]}</height></size>\n"
    for name, box, difficult in objects:
        text += OBJECT.format(name=name, box=box, difficult=difficult)
    path.write_text(text + "</annotation>\n")


def write_voc(folder: Path, objects: dict[str, list[tuple]], lists: dict[str, list[str]]) -> Path:
    """Write VOC's own layout; return the folder."""
    for name, found in objects.items():
        write_image(folder / "JPEGImages" / f"{name}.jpg")
        write_xml(folder / "Annotations" / f"{name}.xml", found)
    main = folder / "ImageSets" / "Main"
    main.mkdir(parents=True)
    for part, names in lists.items():
        (main / f"{part}.txt").write_text("".join(f"{name}\n" for name in names))
    return folder
