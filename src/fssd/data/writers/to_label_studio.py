"""Label Studio: a json of tasks for each split, pictures as local files; coordinates in percent.

Pictures are served from the folder that LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT names, which is that of the
data set written. labeling_config.xml sets up a project.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from fssd.data.writers.writer import Writer, WrittenImage, WrittenObject, WrittenSet, write_json, write_text


def _write(root: Path, content: WrittenSet) -> None:
    for split, images in content.splits.items():
        write_json(root / f"{split or 'tasks'}.json", [_task(image, content) for image in images])
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in content.classes)
    config = (
        '<View>\n  <Image name="image" value="$image"/>\n  <RectangleLabels name="label" toName="image">\n'
        f"{labels}  </RectangleLabels>\n</View>\n"
    )
    write_text(root / "labeling_config.xml", config)


def _task(image: WrittenImage, content: WrittenSet) -> dict[str, Any]:
    url = f"/data/local-files/?d={quote(image.file.as_posix())}"
    regions = [_region(rank, item, image.size) for rank, item in enumerate(content.objects(image), 1)]
    task: dict[str, Any] = {"data": {"image": url}, "annotations": []}
    if not content.model:
        return task | {"annotations": [{"result": regions}]}
    scores = [region["score"] for region in regions]
    # By this score Label Studio orders tasks, so it is that of the object that most needs a look.
    prediction = {"model_version": content.model, "score": min(scores, default=0.0), "result": regions}
    return task | {"predictions": [prediction]}


def _region(rank: int, item: WrittenObject, size: tuple[int, int]) -> dict[str, Any]:
    x1, y1, x2, y2 = item.box
    width, height = size
    region: dict[str, Any] = {
        "id": f"box{rank}",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {
            "x": round(100 * x1 / width, 9),
            "y": round(100 * y1 / height, 9),
            "width": round(100 * (x2 - x1) / width, 9),
            "height": round(100 * (y2 - y1) / height, 9),
            "rotation": 0,
            "rectanglelabels": [item.name],
        },
    }
    return region if item.score is None else {**region, "score": item.score}


LABEL_STUDIO_WRITER = Writer(
    name="label-studio",
    title="Label Studio",
    holds=frozenset({"scores", "folders"}),
    folder=lambda split: f"images/{split}",
    write=_write,
    class_file="labeling_config.xml",
)
