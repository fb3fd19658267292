"""Program of the pod of `sidecars.inject`: an admission webhook that adds a container to each new pod."""

import base64
import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def patch(container: object) -> str:
    """Return a JSON patch that adds a container in front of the others, as some service meshes do."""
    operations = [{"op": "add", "path": "/spec/containers/0", "value": container}]
    return base64.b64encode(json.dumps(operations).encode()).decode()


class Webhook(BaseHTTPRequestHandler):
    """Answers reviews of new pods, and the readiness probe."""

    container: object = None

    def do_GET(self) -> None:
        """Answer the readiness probe."""
        self._answer({})

    def do_POST(self) -> None:
        """Answer a review with the patch."""
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        response = {
            "uid": review["request"]["uid"],
            "allowed": True,
            "patchType": "JSONPatch",
            "patch": patch(self.container),
        }
        self._answer({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response})

    def _answer(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(port: int, container: Path, certificate: Path, key: Path) -> None:
    """Serve until the process is killed."""
    Webhook.container = json.loads(container.read_text())
    server = ThreadingHTTPServer(("", port), Webhook)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), *(Path(argument) for argument in sys.argv[2:]))
