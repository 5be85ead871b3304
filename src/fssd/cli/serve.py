"""fssd serve MODEL [--host 127.0.0.1 --port 8080]: a model behind HTTP, with a page to try it on."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fssd.cli.options import FLAT, Device, Flag, TileFlags, parse
from fssd.cli.result import add_result, write_result
from fssd.config.bounds import Bound, Count, Share
from fssd.counted import counted
from fssd.errors import ConfigError

Port = Annotated[int, Bound("between 0 and 65535", lambda value: 0 <= value <= 65535)]
Delay = Annotated[float, Bound("between 0 and 1000", lambda value: 0 <= value <= 1000)]
UpToAMillion = Annotated[float, Bound("above 0 and at most 1,000,000", lambda value: 0 < value <= 1e6)]


@dataclass(frozen=True)
class Serve:
    """Serve a model: POST an image to /detect, or open the page in a browser."""

    model: Annotated[Path, tyro.conf.Positional]
    """Model file, the folder of a run, or what `fssd export` wrote."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every network of this machine."""
    port: Port = 8080
    """Port to listen on; 0 for any free one."""
    runtime: str = "auto"
    """torch, the name of a runtime such as onnx or openvino, or auto for the file's own. PyTorch models are
    exported for the others first."""
    device: Device = "auto"
    workers: Count | None = None
    """Batches computed at the same time, each in its own thread; None for the runtime's best number."""
    threads: Count | None = None
    """CPU threads for each batch; None for a share such that all batches use each core once or twice."""
    batch_size: Count = 8
    """Most images computed together."""
    delay_ms: Delay = 5.0
    """Milliseconds that an image waits for others that are being prepared."""
    score: Share | None = None
    """Report objects that score more than this, unless a request gives another value; None for 0.5, or what
    `fssd eval --keep-thresholds` wrote into the model."""
    keep: Count = 200
    """Most objects in an answer."""
    tiling: Annotated[TileFlags, FLAT] = TileFlags()
    queue: Count = 32
    """Images accepted and not yet answered; above it the answer is 503."""
    max_mb: UpToAMillion = 10.0
    """Largest body, in megabytes; above it the answer is 413."""
    max_megapixels: UpToAMillion = 40.0
    """Largest image; above it the answer is 422."""
    seconds: UpToAMillion = 30.0
    """Longest time from request to answer; above it the answer is 504."""
    stall: UpToAMillion = 10.0
    """Seconds that a client may be silent within a request before it is disconnected."""
    name: str | None = None
    """Name of the model in the addresses /v2/models/NAME; None for that of its file or folder."""
    access_log: Flag = False
    """Print a line for each request."""


def run(arguments: list[str]) -> int:
    command = parse(Serve, arguments)
    from fssd.serve.memory import share_heaps

    share_heaps()
    import cv2

    from fssd.runtimes.cores import usable_cores
    from fssd.runtimes.packages import require_all
    from fssd.serve.opening import load_detectors, needed_packages, serving_runtime, share_cores

    runtime = serving_runtime(command.model, command.runtime)
    require_all(needed_packages(command.model, runtime))
    from fssd.serve.limits import MEGA, ServerLimits
    from fssd.serve.server import bind, run_server
    from fssd.serve.service import Service, Settings

    limits = ServerLimits(
        body=int(command.max_mb * MEGA),
        pixels=int(command.max_megapixels * MEGA),
        queue=command.queue,
        batch=min(ServerLimits.batch, command.queue),
        seconds=command.seconds,
        stall=command.stall,
    )
    delay = command.delay_ms / 1000
    name = served_name(command.model, command.name)
    tiling = command.tiling.given()
    settings = Settings(runtime, command.score, command.keep, command.batch_size, delay, limits, name, tiling)
    share = share_cores(runtime, command.workers, command.threads, usable_cores())
    cv2.setNumThreads(1)  # images are processed in parallel already
    with bind(command.host, command.port) as bound, tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        detectors = load_detectors(command.model, runtime, share, folder=folder, device=command.device)
        service = Service(detectors, settings)
        service.pipeline.warm_up()
        tiles = "" if service.tiles is None else f", {service.tiles}"
        classes = counted(len(detectors[0].classes), "class")
        print(f"{command.model}: {classes}, {runtime}{tiles}", flush=True)
        add_result(model=command.model, runtime=runtime, classes=detectors[0].classes)
        run_server(service, bound, _say_address, access_log=command.access_log)
    return 0


def served_name(model: Path, given: str | None) -> str:
    """The name of a model in addresses: `given`, or that of its file with a "-" for what cannot stand there.

    Raises ConfigError for a given one that cannot.
    """
    if given is None:
        path = model.absolute()  # a link goes by its own name
        name = path.name if path.is_dir() else path.stem
        return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "model"
    if not re.fullmatch(r"[\w.-]+", given, flags=re.ASCII) or not given.strip("."):
        raise ConfigError(f"{given!r} cannot be part of an address; give --name letters, digits, - and _")
    return given


def _say_address(address: str) -> None:
    """The port is open: say so now, because a server ends only when it is told to."""
    print(f"listening on {address}", flush=True)
    add_result(address=address)
    write_result()
