"""Pascal VOC: Annotations, JPEGImages and ImageSets/Main; labelmap.txt, in which CVAT looks for the classes.

Boxes are written as they are, without adding 1.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from fssd.data.writers.writer import Writer, WrittenImage, WrittenSet, decimal, write_text

_PICTURES = "JPEGImages"


def _write(root: Path, content: WrittenSet) -> None:
    for image in content.images:
        name = image.file.relative_to(_PICTURES).with_suffix(".xml")
        file = root / "Annotations" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        tree = ElementTree.ElementTree(_annotation(image, content))
        ElementTree.indent(tree)
        tree.write(file, encoding="utf-8", xml_declaration=True)
    labels = "".join(f"{name}:::\n" for name in content.classes)
    write_text(root / "labelmap.txt", f"# label:color_rgb:parts:actions\n{labels}")
    for split, images in content.splits.items():
        ids = [image.file.relative_to(_PICTURES).with_suffix("").as_posix() for image in images]
        if split:
            write_text(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{name}\n" for name in ids))


def _annotation(image: WrittenImage, content: WrittenSet) -> ElementTree.Element:
    root = ElementTree.Element("annotation")
    # With the folders below JPEGImages, because CVAT and Datumaro look for this name there.
    _add(root, folder=_PICTURES, filename=image.file.relative_to(_PICTURES).as_posix())
    size = ElementTree.SubElement(root, "size")
    _add(size, width=str(image.size[0]), height=str(image.size[1]), depth="3")
    _add(root, segmented="0")
    for item in content.objects(image):
        row = ElementTree.SubElement(root, "object")
        _add(row, name=item.name, pose="Unspecified", truncated="0", difficult=str(int(item.difficult)))
        sides = dict(zip(("xmin", "ymin", "xmax", "ymax"), map(decimal, item.box), strict=True))
        _add(ElementTree.SubElement(row, "bndbox"), **sides)
    return root


def _add(parent: ElementTree.Element, **texts: str) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = text


VOC_WRITER = Writer(
    name="voc",
    title="VOC",
    holds=frozenset({"difficult", "folders", "any split"}),
    folder=lambda _: _PICTURES,
    write=_write,
    class_file="labelmap.txt",
    file_each=True,
)
