"""Every loss of a conversion is told, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from fssd.data.writers.convert import convert_data

DIFFICULT = "no difficult flag: 1 objects lose it"
CROWD = "no crowd flag: 1 crowds become ordinary objects"
AREAS = "no areas: those of 5 objects are dropped"
IDS = "no image ids but names of pictures: those of the source are dropped"
LABELMAP = "labelmap.txt has them all"
UNUSED = "knows no classes without objects: empty class"


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        (
            "voc",
            [
                f"VOC has {CROWD}",
                f"VOC has {AREAS}",
                f"VOC {UNUSED}; {LABELMAP}",
                f"VOC has {IDS}",
            ],
        ),
        ("yolo", [f"YOLO has {DIFFICULT}", f"YOLO has {CROWD}", f"YOLO has {AREAS}", f"YOLO has {IDS}"]),
        ("cvat", [f"CVAT has {CROWD}", f"CVAT has {AREAS}", f"CVAT has {IDS}"]),
        (
            "coco",
            [
                "COCO has no difficult flag: 1 annotations have a key `difficult`, which fssd reads",
                "COCO's image ids are numbers: they count from 1",
            ],
        ),
        (
            "label-studio",
            [
                *(f"Label Studio has {text}" for text in (DIFFICULT, CROWD, AREAS)),
                f"Label Studio {UNUSED}; labeling_config.xml has them all",
                "Label Studio has no order of classes; labeling_config.xml has it",
                f"Label Studio has {IDS}",
            ],
        ),
    ],
)
def test_losses(source: Path, tmp_path: Path, to: str, expected: list[str]) -> None:
    notes = [note for note in convert_data(source, to, tmp_path / "out").notes if "renamed" not in note]
    if to == "voc":
        expected = [*expected[:3], "VOC has no order of classes; labelmap.txt has it", expected[3]]
    assert notes == expected


def test_a_split_that_is_a_folder_of_another_name(source: Path, tmp_path: Path) -> None:
    convert_data(source, "voc", tmp_path / "voc")
    sets = tmp_path / "voc" / "ImageSets" / "Main"
    (sets / "val.txt").rename(sets / "fold1.txt")
    note = "Create ML has no splits: fold1 is a folder, which fssd does not take for a split"
    assert note in convert_data(tmp_path / "voc", "createml", tmp_path / "out").notes
    assert (tmp_path / "out" / "fold1" / "_annotations.createml.json").is_file()


def test_renamed_pictures(source: Path, tmp_path: Path) -> None:
    notes = convert_data(source, "createml", tmp_path / "out").notes
    (note,) = (note for note in notes if "renamed" in note)
    first = f"train/night_one.png for {source}/train/night/one.png"
    assert note.startswith("3 pictures are renamed") and note.endswith(first)
