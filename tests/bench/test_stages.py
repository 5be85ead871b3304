"""The stages of a batch: the same detections as the detector gives, each stage once a turn."""

from __future__ import annotations

from dataclasses import replace

from fssd.bench.photographs import Photographs
from fssd.bench.stages import STAGES, WHOLES, network_step, time_stages, whole_steps
from fssd.bench.subject import Subject
from fssd.inference.detector import Detector


def test_every_step_is_timed_every_turn(subject: Subject, pictures: Photographs) -> None:
    timed = time_stages(subject, pictures, batch=2, score=0.01, repeats=3, warm_up=1)
    assert list(timed.seconds) == [*STAGES, *WHOLES]
    assert all(len(times) == 3 and min(times) > 0 for times in timed.seconds.values())


def test_the_stages_find_what_the_detector_finds(subject: Subject, pictures: Photographs) -> None:
    timed = time_stages(subject, pictures, batch=2, score=0.3, repeats=2, warm_up=1)
    expected = [len(found) for found in subject.detector(list(pictures.images), score=0.3)]
    first, second, third = expected
    # Turns of two: 0 and 1 warm up, then 2 and 0, then 1 and 2.
    assert timed.detections == [third, first, second, third]
    assert max(expected) > 0


def test_tiles_of_the_model_are_not_timed(subject: Subject, pictures: Photographs) -> None:
    plain = subject.detector
    tiled = replace(subject, detector=Detector(plain.network, plain.classes, tiles=100))
    arrays, expected = (whole_steps(one, pictures, 2, 0.3)["arrays"]() for one in (tiled, subject))
    assert arrays == expected, "the whole images, as in the stages"


def test_network_step_can_be_called_again_and_again(subject: Subject, pictures: Photographs) -> None:
    step = network_step(subject, pictures, batch=2)
    step()
    step()
