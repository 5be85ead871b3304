"""The `fssd` command: runs the module of the verb, beside this one.

Nothing heavy is imported before the verb is known, so that help is fast.
"""

import atexit
import errno
import os
import sys
from collections.abc import Callable
from importlib import import_module
from io import TextIOWrapper

from fssd.cli.result import add_result, result_on_stdout, take_json
from fssd.errors import ConfigError, FssdError, Stopped, nearest

COMMANDS = {
    "train": "train a detector on your own images",
    "eval": "measure a model on a data set as the papers do (VOC 2007, VOC 2012, COCO)",
    "detect": "find objects in images, folders and videos; write pictures and JSON",
    "why": "explain detections and missed objects: levels, priors, maps, thresholds",
    "check": "report every problem of a data set with file, place and reason",
    "convert": "write a data set in the format of another tool: VOC, YOLO, COCO, LabelMe, CVAT, ...",
    "shard": "write a data set as tar files and an index, on a disk or in S3",
    "label": "draft labels with a model, for a person to correct in an annotation tool",
    "pick": "choose the images that are most worth labelling next",
    "scenes": "write a small data set of handwritten digits in photographs",
    "import": "convert published weights: .caffemodel, .pth",
    "subset": "take some classes out of a model, such as VOC's out of COCO's",
    "fetch": "download published weights by name, or VOC or COCO; checked and resumed",
    "push": "write a model and its card to a Hugging Face hub",
    "ablate": "train the rows of a table, measure them, write the table",
    "tune": "search for good training settings, stopping the worse runs early",
    "curves": "plot accuracy against iterations (the paper's Fig. 4)",
    "scatter": "plot speed on this machine against accuracy (Fig. 5)",
    "compare": "draw what two models find in the same images (Fig. 6)",
    "submit": "detect on a test split and pack results for the VOC or COCO server",
    "serve": "detect over HTTP, with a page to try the model on",
    "export": "write a model for ONNX Runtime, OpenVINO, ncnn, TensorRT or a web page, checked",
    "bench": "time a model stage by stage, against the machine's measured peak",
    "completion": "print the completion of verbs and flags for bash, zsh or fish",
    "demo": "try the packaged model, then train fssd300-lite on digit scenes for minutes",
}

# These clean up after a signal as after Ctrl-C. The others keep what is done in their own way.
TIDY = frozenset(
    [
        "bench", "check", "compare", "convert", "curves", "eval", "export", "fetch", "import", "label",
        "pick", "push", "scatter", "scenes", "submit", "subset", "why",
    ]
)  # fmt: skip

MODULES = {"import": "import_"}  # verbs that cannot be a module's name

BAD_INPUT = 2
INTERRUPTED = 130
READER_GONE = 141
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def main(arguments: list[str] | None = None) -> int:
    """Run `fssd VERB ...` and return the exit code: 0 done, 1 done in part or with findings, 2 not done.

    As in a shell, 128 and the number of the signal that ended it, if one did; 141 if nobody reads its output.
    docs/command-line.md has them for each verb.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name that cannot be printed must not end the work
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            code = _run(sys.argv[1:] if arguments is None else arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:  # `fssd ... | head`
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):  # what is left in their buffers cannot be written either
            os.dup2(nowhere, stream.fileno())
        code = READER_GONE
    if _is_reading():
        atexit.register(_end_now, code)
    return code


def _is_reading() -> bool:
    """Whether a thread still waits for a live source; nothing is imported to learn that there is none."""
    live = sys.modules.get("fssd.inference.live")
    return live is not None and bool(live.is_reading())


def _end_now(code: int) -> None:
    """End without what Python does at its end: if the thread comes out of OpenCV meanwhile, it aborts."""
    if _is_reading():
        os._exit(code)  # stdout was flushed


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else BAD_INPUT
    if arguments[0] == "--version":
        from fssd import __version__

        print(f"fssd {__version__}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in COMMANDS:
        rest = arguments
    rest, wants_json = take_json(verb, rest)
    if not wants_json:
        return _run_verb(verb, rest)
    with result_on_stdout():
        try:
            return _run_verb(verb, rest)
        except SystemExit:  # of the parser, which has said why on stderr
            add_result(error="the command line is wrong; stderr says where")
            raise
        except Exception as error:
            add_result(error=f"{type(error).__name__}: {error}")
            raise


def _run_verb(verb: str, arguments: list[str]) -> int:
    try:
        if verb not in COMMANDS:
            raise ConfigError(f"there is no command {verb!r}{nearest(verb, COMMANDS)}")
        run = import_module(f"fssd.cli.{MODULES.get(verb, verb)}").run
        return _run_tidily(run, arguments) if verb in TIDY else int(run(arguments))
    except FssdError as error:
        message = str(error)
    except BrokenPipeError:
        raise
    except OSError as error:  # a folder that cannot be written, a full disk
        where = f"{error.filename}: " if error.filename else ""
        full = "; free space there, then run the command again (a training: with --resume)"
        message = f"{where}{error.strerror or error}{full if error.errno in FULL else ''}"
    except RuntimeError as error:
        message = _advice(str(error))
        if not message:
            raise
    except Stopped as stopped:
        if stopped.progress:
            print(stopped, file=sys.stderr)
            add_result(error=str(stopped))
        return 128 + stopped.number
    except KeyboardInterrupt:
        return _interrupted(INTERRUPTED)
    print(f"error: {message}", file=sys.stderr)
    add_result(error=message)
    return BAD_INPUT


def _run_tidily(run: Callable[[list[str]], int], arguments: list[str]) -> int:
    from fssd.cli.signals import Ended, ending_signals

    try:
        with ending_signals():
            return int(run(arguments))
    except Ended as ended:
        return _interrupted(128 + ended.number)


def _interrupted(code: int) -> int:
    print("interrupted", file=sys.stderr)
    add_result(error="interrupted")
    return code


def _advice(message: str) -> str:
    """What to do about a resource error that torch reports, "" for any other error."""
    if "out of memory" in message:
        return "the device is out of memory; lower --batch-size"
    if "DataLoader worker" in message:
        return "a process that loads images was killed, usually for lack of (shared) memory; lower --workers"
    return ""


def _overview() -> str:
    lines = ["usage: fssd VERB ...", "", "SSD and FSSD object detectors.", ""]
    width = max(map(len, COMMANDS))
    lines += [f"  {verb:<{width}} {meaning}" for verb, meaning in COMMANDS.items()]
    lines += ["", "`fssd VERB --help` explains a verb; `fssd --version` prints the version."]
    lines += ["--json, with every verb, prints its result as JSON and everything else to stderr."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
