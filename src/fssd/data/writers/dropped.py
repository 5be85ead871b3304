"""What a format has no place for, in a line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fssd.data.formats.lookup import folder_split
from fssd.data.picture_identity import named_by_id
from fssd.data.writers.to_coco import image_ids
from fssd.data.writers.writer import Writer, WrittenImage, WrittenSet


def dropped(content: WrittenSet, writer: Writer) -> list[str]:
    """What of this data set the format cannot hold, and what becomes of it."""
    return [*_flags(content, writer), *_classes(content, writer), *_names(content, writer)]


def _flags(content: WrittenSet, writer: Writer) -> Iterator[str]:
    records, holds, title = [image.record for image in content.images], writer.holds, writer.title
    difficult = sum(int(record.difficult.sum()) for record in records)
    crowds = sum(int(record.crowd.sum()) for record in records)
    areas = sum(len(record.areas) for record in records if record.areas is not None)
    if difficult and "difficult" not in holds:
        yield f"{title} has no difficult flag: {difficult} objects lose it"
    if difficult and writer.name == "coco":
        yield f"COCO has no difficult flag: {difficult} annotations have a key `difficult`, which fssd reads"
    if crowds and "crowd" not in holds:
        yield f"{title} has no crowd flag: {crowds} crowds become ordinary objects"
    if areas and "areas" not in holds:
        yield f"{title} has no areas: those of {areas} objects are dropped"
    if content.model and "scores" not in holds:
        yield f"{title} has no place for scores: they are dropped"


def _classes(content: WrittenSet, writer: Writer) -> Iterator[str]:
    """Of formats whose classes are those of the objects."""
    if "classes" in writer.holds:
        return
    used = {int(label) for image in content.images for label in image.record.labels}
    unused = [name for label, name in enumerate(content.classes) if label not in used]
    found = [name for label, name in enumerate(content.classes) if label in used]
    where = f"{writer.class_file} has them all" if writer.class_file else "they are dropped"
    if unused:
        yield f"{writer.title} knows no classes without objects: {', '.join(unused)}; {where}"
    if found != sorted(found):
        order = f"{writer.class_file} has it" if writer.class_file else "they are sorted by name"
        yield f"{writer.title} has no order of classes; {order}"


def _names(content: WrittenSet, writer: Writer) -> Iterator[str]:
    for split in content.splits:
        if "any split" not in writer.holds and writer.name != "yolo" and split != folder_split([split]):
            yield f"{writer.title} has no splits: {split} is a folder, which fssd does not take for a split"
    if writer.name == "yolo" and "" in content.splits:
        yield "YOLO has no images without a split: they are called train"
    renamed = [image for image in content.images if image.file.name != image.record.path.name]
    if renamed:
        first = renamed[0]
        example = f"the first is {first.file} for {first.record.path}"
        yield f"{len(renamed)} pictures are renamed, because others have or could have their names: {example}"
    if content.model:
        return
    if writer.name == "coco":
        if not all(_keeps_ids(images) for images in content.splits.values()):
            yield "COCO's image ids are numbers: they count from 1"
    elif any(named_by_id(image.record) is None for image in content.images):
        yield f"{writer.title} has no image ids but names of pictures: those of the source are dropped"


def _keeps_ids(images: Sequence[WrittenImage]) -> bool:
    return list(map(str, image_ids(images))) == [image.record.image_id for image in images]
