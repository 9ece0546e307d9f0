"""An address for hooks: `python -m tests.e2e.hook_server CERTIFICATE KEY RECORD`.

It speaks TLS on localhost, keeps each question as a JSON line in RECORD, and answers the status that stands in the file
beside it that ends in .status, 204 where there is none.
"""

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

PORT = 8443


def main() -> None:
    certificate, key, record = map(Path, sys.argv[1:])
    status = record.with_suffix(".status")

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            about = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with record.open("a") as lines:
                lines.write(json.dumps({"header": self.headers["Idempotency-Key"], **about}) + "\n")
            self.send_response(int(status.read_text()) if status.exists() else 204)
            self.end_headers()

    server = HTTPServer(("localhost", PORT), Answer)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
