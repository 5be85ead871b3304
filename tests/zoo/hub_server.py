"""A small stand-in for a Hugging Face hub: repositories in memory, and the routes of reads and writes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_test"


class HubServer(ThreadingHTTPServer):
    """repositories: files by name, by repository. private: repositories that were made private."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Routes)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit(self, repository: str) -> str:
        """A revision that follows from the content."""
        digest = hashlib.sha1(usedforsecurity=False)
        for name, content in sorted(self.repositories[repository].items()):
            digest.update(name.encode() + b"\0" + content)
        return digest.hexdigest()


class _Routes(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._get(body=False)

    def do_GET(self) -> None:
        self._get(body=True)

    def _get(self, body: bool) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        repositories = self.server.repositories
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+|/tree/[^/]+)?", path):
            name, what = found.groups()
            if name not in repositories:
                return self._missing("RepoNotFound")
            files = repositories[name]
            if what and what.startswith("/tree"):
                rows = [
                    {"type": "file", "path": file, "size": len(content), "oid": _oid(content)}
                    for file, content in files.items()
                ]
                return self._json(rows)
            siblings = [{"rfilename": file} for file in files]
            return self._json({"id": name, "sha": self.server.commit(name), "siblings": siblings})
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            name, file = found.groups()
            if file not in repositories.get(name, {}):
                return self._missing("EntryNotFound")
            content = repositories[name][file]
            headers = {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": self.server.commit(name)}
            return self._send(200, content, headers, body=body)
        return self._missing("RepoNotFound")

    def do_POST(self) -> None:
        self.server.requests.append(f"POST {self.path}")
        length = self.headers.get("Content-Length")
        sent = self.rfile.read(int(length)) if length else self._chunked()
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, b'{"error": "Invalid username or password."}', {})
        if self.path == "/api/repos/create":
            asked = json.loads(sent)
            name = f"{asked.get('organization') or 'user'}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            if asked.get("private") or asked.get("visibility") == "private":
                self.server.private.add(name)
            return self._json({"url": f"{self.server.url}/{name}", "id": name, "name": name})
        name = "/".join(self.path.split("/")[3:5])
        if "/preupload/" in self.path:
            files = json.loads(sent)["files"]
            rows = [{"path": row["path"], "uploadMode": "regular", "shouldIgnore": False} for row in files]
            return self._json({"files": rows})
        if "/commit/" in self.path:
            for line in sent.splitlines():
                row = json.loads(line)
                value = row["value"]
                if row["key"] == "deletedFile":
                    del self.server.repositories[name][value["path"]]
                elif row["key"] == "file":
                    self.server.repositories[name][value["path"]] = base64.b64decode(value["content"])
            oid = self.server.commit(name)
            url = f"{self.server.url}/{name}/commit/{oid}"
            return self._json({"commitUrl": url, "commitOid": oid, "success": True})
        return self._missing("RepoNotFound")

    def _chunked(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _missing(self, code: str) -> None:
        self._send(404, b"{}", {"X-Error-Code": code, "X-Error-Message": "not found"})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool = True) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return


def _oid(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
