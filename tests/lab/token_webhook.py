"""A token webhook for tests, at the port that is its argument.

The token `k8s-aws-v1.NAME` stands for the user aws:NAME in the group group:NAME.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PREFIX = "k8s-aws-v1."


class Webhook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({**review, "status": status(review["spec"]["token"])}).encode()
        known_path = self.path.split("?")[0] == "/_lab/authenticate"
        self.send_response(200 if known_path else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def status(token: str) -> dict[str, Any]:
    if not token.startswith(PREFIX):
        return {"authenticated": False}
    name = token.removeprefix(PREFIX)
    return {"authenticated": True, "user": {"username": f"aws:{name}", "groups": [f"group:{name}"]}}


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Webhook)
    print("listening", flush=True)
    server.serve_forever()
