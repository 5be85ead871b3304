"""The files of deploy/: nginx loses no request when a replica is killed; the manifest fits its schema."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import tyro
import yaml

from fssd.cli.serve import Serve

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PATIENCE = 300.0  # seconds after which a test that hangs fails
REQUESTS, CLIENTS, KILLED_AT = 90, 3, 30
NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


def test_the_health_check_of_the_image() -> None:
    """Its command ends well where /health answers, and badly where nothing does."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    (check,) = re.findall(r"^HEALTHCHECK .*?CMD (\[.*\])$", text, flags=re.MULTILINE)
    words = json.loads(check)
    assert words[:2] == ["python", "-c"] and "127.0.0.1:8080/health" in words[2]

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        script = words[2].replace("8080", str(server.server_port)).replace("timeout=4", "timeout=60")
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
        server.shutdown()
    gone = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert gone.returncode == 1


def test_what_the_image_copies_is_there() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.+)$", text, flags=re.MULTILINE):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources), line


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def configuration(folder: Path, port: int, replicas: list[int]) -> str:
    """A whole configuration around deploy/nginx.conf, with other ports, and files in `folder` alone."""
    site = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    for old, new in zip((8081, 8082), replicas, strict=True):
        assert site.count(f"server 127.0.0.1:{old}") == 1
        site = site.replace(f"server 127.0.0.1:{old}", f"server 127.0.0.1:{new}")
    assert site.count("listen 8080;") == 1
    site = site.replace("listen 8080;", f"listen 127.0.0.1:{port};")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder / kind};" for kind in kinds)
    return (
        f"daemon off; pid {folder / 'pid'}; error_log {folder / 'error.log'}; worker_processes 1;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary}\n{site}}}\n"
    )


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[[list[int]], str]]:
    """Starts nginx in front of two ports, and gives its address."""
    if NGINX is None:
        pytest.skip("nginx is not installed; apt-get install nginx-light")
    begun: list[subprocess.Popen[bytes]] = []

    def start(replicas: list[int]) -> str:
        port = free_port()
        file = tmp_path / "nginx.conf"
        file.write_text(configuration(tmp_path, port, replicas), encoding="utf-8")
        begun.append(
            subprocess.Popen([NGINX, "-e", str(tmp_path / "error.log"), "-p", str(tmp_path), "-c", str(file)])
        )
        address = f"http://127.0.0.1:{port}"
        end = time.monotonic() + PATIENCE
        while True:
            assert begun[-1].poll() is None, (tmp_path / "error.log").read_text()
            try:
                assert httpx.get(f"{address}/nginx").text == "ok\n"
                return address
            except httpx.TransportError:
                assert time.monotonic() < end
                time.sleep(0.05)

    yield start
    for process in begun:
        process.terminate()
        process.wait(PATIENCE)


def test_no_request_is_lost_when_a_replica_is_killed(
    model: Path, start_server: Callable[..., Any], nginx: Callable[[list[int]], str], jpeg: bytes
) -> None:
    with ThreadPoolExecutor(2) as pool:
        options = ("--workers", 1, "--seconds", 600)
        replicas = list(pool.map(lambda _: start_server(model, *options), range(2)))
    address = nginx([replica.port for replica in replicas])
    numbers = iter(range(REQUESTS))
    turn = threading.Lock()
    answers: Counter[Any] = Counter()

    def client() -> None:
        with httpx.Client(timeout=PATIENCE) as line:
            while True:
                with turn:
                    number = next(numbers, None)
                if number is None:
                    return
                if number == KILLED_AT:
                    replicas[1].process.kill()
                try:
                    answer = line.post(f"{address}/detect", content=jpeg)
                    kind = len(answer.json()["objects"]) if answer.status_code == 200 else answer.status_code
                except httpx.HTTPError as error:
                    kind = type(error).__name__
                with turn:
                    answers[kind] += 1

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for one in clients:
        one.start()
    for one in clients:
        one.join(PATIENCE)
    # Equal pictures have equally many objects; an error would be another key.
    assert list(answers.values()) == [REQUESTS], answers
    assert next(iter(answers)) > 5
    assert replicas[1].process.wait(PATIENCE) == -9
    served = [httpx.get(f"{replicas[0].address}/metrics").text, httpx.get(f"{address}/health").json()]
    assert served[1]["status"] == "ok"
    assert replicas[0].stop() == 0


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")))


def test_the_manifest_fits_the_schema_of_kubernetes() -> None:
    """Strictly: a field that the API does not know is an error, such as one indented too little."""
    validate = pytest.importorskip(
        "kubernetes_validate", reason="the schemas are in the package kubernetes-validate"
    )
    for document in documents():
        for version in ("1.28", "1.31", "1.34"):
            validate.validate(document, version, strict=True)
    (broken,) = (one for one in documents() if one["kind"] == "Deployment")
    broken["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(Exception, match="readynessProbe"):
        validate.validate(broken, "1.31", strict=True)


def test_the_parts_of_the_manifest_fit_each_other_and_the_server() -> None:
    parts = {one["kind"]: one for one in documents()}
    pod = parts["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    labels = pod["metadata"]["labels"].items()
    assert parts["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert parts["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert parts["Service"]["spec"]["selector"].items() <= labels
    verb, *arguments = container["args"]
    served = tyro.cli(Serve, args=arguments)
    assert verb == "serve" and served.host == "0.0.0.0"
    (port,) = container["ports"]
    assert port["containerPort"] == served.port
    probes = ("startupProbe", "readinessProbe", "livenessProbe")
    gets = [container[probe]["httpGet"] for probe in probes]
    assert [get["path"] for get in gets] == ["/health", "/ready", "/health"]
    assert {get["port"] for get in gets} | {parts["Service"]["spec"]["ports"][0]["targetPort"]} == {
        port["name"]
    }
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["spec"]["terminationGracePeriodSeconds"] > wait + served.seconds
    assert served.threads == int(container["resources"]["requests"]["cpu"])
    assert "memory" in container["resources"]["limits"]


def test_the_image_is_made_of_what_is_in_the_checkout() -> None:
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert {"src", "pyproject.toml"} <= set(copied)
    assert all((ROOT / word).exists() for word in copied)
    extras = re.findall(r'"\.\[([\w,]+)\]"', "\n".join(lines))
    known = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"\n{extra} = [" in known for extra in extras[0].split(","))
