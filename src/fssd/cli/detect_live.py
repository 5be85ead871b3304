"""A live source in `fssd detect`: lines of JSON on stdout, and a window."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING

from fssd.cli.detect_film import check_tracking, tracks_of
from fssd.cli.result import wants_json
from fssd.cli.signals import Ended, ending_signals
from fssd.counted import counted
from fssd.errors import ConfigError, DataError, Stopped

if TYPE_CHECKING:
    from fssd.cli.detect_flags import Detect

EVERY, RETRIES = 1, 5  # frames, attempts in a row; of the flags, where they are not given


def has_live_source(command: Detect) -> bool:
    """Whether there is a live source. Raises ConfigError for flags that do not go with it, or without one."""
    from fssd.inference.live import is_live, public_name

    sources = [source for source in command.images if is_live(source)]
    if not sources:
        if given := command.live.given():
            raise ConfigError(f"{given[0]} is for live sources, and there are files alone; leave it out")
        return False
    name = public_name(sources[0])
    if len(command.images) > 1:
        raise ConfigError(f"{name} is live, which is one source by itself; leave the others out")
    check_tracking(command)
    defaults = type(command)
    useless = {"--voc": command.voc, "--coco": command.coco, "--no-pictures": not command.pictures}
    useless |= {
        "--out": command.out != defaults.out,
        "--batch-size": command.batch_size != defaults.batch_size,
    }
    for flag in (flag for flag, given in {**useless, "--json": wants_json()}.items() if given):
        raise ConfigError(f"{name} is live: its detections are lines of JSON on stdout; leave out {flag}")
    return True


def detect_live(command: Detect) -> int:
    """Print a line of JSON for each frame, until the source ends, its window is closed or a signal comes."""
    from fssd.inference.detector import Detector
    from fssd.inference.live import open_live, public_name
    from fssd.inference.window import FrameWindow
    from fssd.tracking.live_frames import live_frames

    flags = command.live
    name = public_name(command.images[0])
    window = FrameWindow(f"fssd: {name}") if flags.show else None
    detector = Detector.load(command.model, device=command.device)
    tracks = tracks_of(command, detector)
    settings = {**command.given(), "scales": command.scales or None}
    count = damaged = 0

    def report(error: DataError) -> None:
        nonlocal damaged
        damaged += 1
        print(f"error: {error}", file=sys.stderr)

    try:
        retries = RETRIES if flags.reconnect is None else flags.reconnect
        source = open_live(command.images[0], sys.stdin.buffer, retries, report)
        with ending_signals(), closing(source) as frames:
            for frame in live_frames(detector, frames, settings, flags.every or EVERY, tracks):
                print(frame.row(), flush=True)
                count += 1
                if window is not None and not window.show(frame.drawn()):
                    break
    except Ended as ended:
        raise Stopped(ended.number, "stopped", f"{counted(count, 'frame')} done") from None
    except DataError as error:
        report(error)
    finally:
        if window is not None:
            window.close()
        if tracks is not None:
            print(tracks, file=sys.stderr)
    return 1 if damaged else 0
