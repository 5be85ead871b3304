"""CVAT for images 1.1: annotations.xml beside images/; splits are subsets. labels.json sets up a task."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from fssd.data.writers.writer import Writer, WrittenImage, WrittenObject, WrittenSet, decimal, write_json

_PICTURES = "images"


def _write(root: Path, content: WrittenSet) -> None:
    attributes = _attributes(content)
    with (root / "annotations.xml").open("w", encoding="utf-8", newline="\n") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
        file.write(_meta(content, attributes))
        number = 0
        for split, images in content.splits.items():
            for image in images:
                file.write(_image(number, split, image, content))
                number += 1
        file.write("</annotations>\n")
    described = [
        {
            "name": name,
            "attributes": [
                {"name": key, "mutable": False, "input_type": kind, "default_value": value, "values": [value]}
                for key, (kind, value) in attributes.items()
            ],
        }
        for name in content.classes
    ]
    write_json(root / "labels.json", described)


def _attributes(content: WrittenSet) -> dict[str, tuple[str, str]]:
    """The attributes that objects have: name -> (CVAT's type of input, default value)."""
    objects = [image.record for image in content.images]
    difficult = {"difficult": ("checkbox", "false")} if any(item.difficult.any() for item in objects) else {}
    return difficult | ({"score": ("text", "")} if content.model else {})


def _meta(content: WrittenSet, attributes: dict[str, tuple[str, str]]) -> str:
    stated = "".join(
        f"<attribute><name>{key}</name><mutable>False</mutable><input_type>{kind}</input_type>"
        f"<default_value>{value}</default_value><values>{value}</values></attribute>"
        for key, (kind, value) in attributes.items()
    )
    labels = "".join(
        f"        <label><name>{escape(name)}</name><attributes>{stated}</attributes></label>\n"
        for name in content.classes
    )
    # A project has a task for each subset.
    subsets = "".join(f"<task><subset>{escape(split)}</subset></task>" for split in content.splits)
    is_project = any(content.splits)
    kind, parts = (
        ("project", f"<tasks>{subsets}</tasks>") if is_project else ("task", "<subset>default</subset>")
    )
    inner = f"      {parts}\n      <labels>\n{labels}      </labels>\n"
    return f"  <meta>\n    <{kind}>\n{inner}    </{kind}>\n  </meta>\n"


def _image(number: int, split: str, image: WrittenImage, content: WrittenSet) -> str:
    name = quoteattr(image.file.relative_to(_PICTURES).as_posix())
    subset = f" subset={quoteattr(split)}" if split else ""
    boxes = "".join(map(_box, content.objects(image)))
    width, height = image.size
    return (
        f'  <image id="{number}" name={name}{subset} width="{width}" height="{height}">\n{boxes}  </image>\n'
    )


def _box(item: WrittenObject) -> str:
    sides = zip(("xtl", "ytl", "xbr", "ybr"), map(decimal, item.box), strict=True)
    corners = " ".join(f'{side}="{value}"' for side, value in sides)
    source = "manual" if item.score is None else "auto"
    difficult = '      <attribute name="difficult">true</attribute>\n' if item.difficult else ""
    score = "" if item.score is None else f'      <attribute name="score">{item.score:.3f}</attribute>\n'
    start = f'    <box label={quoteattr(item.name)} source="{source}" occluded="0" {corners} z_order="0">\n'
    return f"{start}{difficult}{score}    </box>\n"


CVAT_WRITER = Writer(
    name="cvat",
    title="CVAT",
    holds=frozenset({"difficult", "classes", "scores", "folders", "any split"}),
    folder=lambda split: f"{_PICTURES}/{split}",
    write=_write,
)
