"""As much of W&B's server as a run needs to begin; then it hangs, refuses, or answers 500."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Fault = Literal["hang", "500", "refuse"]


class WandbServer:
    """Answers until `fail` is called."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._fault: Fault | None = None
        self._closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.requests.append(self.path)
                if outer._fault == "hang":
                    outer._closing.wait()
                answer = outer._answer(body) if self.path.endswith("/graphql") else {}
                data = json.dumps({"data": answer} if answer else {}).encode()
                self.send_response(500 if outer._fault else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST

            def log_message(self, format: str, *args: object) -> None: ...

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None: ...

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def fail(self, fault: Fault) -> None:
        self._fault = fault
        if fault == "refuse":
            self._server.shutdown()
            self._server.server_close()

    def close(self) -> None:
        self._closing.set()
        if self._fault != "refuse":
            self.fail("refuse")

    def _answer(self, body: bytes) -> dict[str, Any]:
        asked = json.loads(body)
        query, variables = asked["query"], asked.get("variables") or {}
        if "upsertBucket" in query:
            project = {"id": "p", "name": "align", "entity": {"id": "e", "name": "me"}}
            bucket = {"id": "r", "name": "x", "displayName": "x", "config": "{}", "historyLineCount": 0}
            return {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/up/{name}"} for name in variables.get("files", [])]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if "serverInfo" in query:
            return {"serverInfo": {"features": [], "cliVersionInfo": {}, "latestLocalVersionInfo": None}}
        if "viewer" in query:
            return {"viewer": {"id": "v", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        return {"model": None} if "model(" in query else {}
