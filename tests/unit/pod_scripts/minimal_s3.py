"""As much of S3 as a file takes on its way in and out, over real HTTP. It believes every signature."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Bucket:
    """What the store holds, and how: `files` by path, `parts` of uploads that have neither ended nor been given up.

    `fails_at`: the part that it refuses, which no real store can be asked for. `keeps`: it refuses to remove files, and
    says 200 as S3 does.
    """

    def __init__(self) -> None:
        self.url = ""
        self.files: dict[str, bytes] = {}
        self.kinds: dict[str, str] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.sizes: list[int] = []
        self.fails_at = 0
        self.keeps = False


class _Handler(BaseHTTPRequestHandler):
    """One request. A subclass says for which bucket."""

    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def log_message(self, *args: object) -> None:
        """Nothing: pytest's output is for findings."""

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _where(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return parts.path, parse_qs(parts.query, keep_blank_values=True)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_PUT(self) -> None:
        path, query = self._where()
        body = self._body()
        if "partNumber" not in query:
            self.bucket.files[path] = body
            self.bucket.kinds[path] = self.headers.get("Content-Type", "")
        elif int(query["partNumber"][0]) == self.bucket.fails_at:
            self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
            return
        else:
            self.bucket.parts[path][int(query["partNumber"][0])] = body
            self.bucket.sizes.append(len(body))
        self._answer(200, ETag='"e"')

    def do_POST(self) -> None:
        path, query = self._where()
        body = self._body()
        if "delete" in query:
            self._delete([key.decode() for key in re.findall(rb"<Key>([^<]+)</Key>", body)])
            return
        if "uploads" in query:
            self.bucket.parts[path] = {}
            self.bucket.kinds[path] = self.headers.get("Content-Type", "")
            self._answer(
                200,
                b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
            )
            return
        stored = self.bucket.parts.pop(path)
        numbers = [int(number) for number in re.findall(rb"<PartNumber>(\d+)</PartNumber>", body)]
        self.bucket.files[path] = b"".join(stored[number] for number in numbers)
        self._answer(200, b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>")

    def _delete(self, keys: list[str]) -> None:
        refused = ""
        for key in keys:
            if self.bucket.keeps:
                refused += f"<Error><Key>{key}</Key><Code>AccessDenied</Code></Error>"
            else:
                del self.bucket.files[f"{self._where()[0].rstrip('/')}/{key}"]
        self._answer(200, f"<DeleteResult>{refused}</DeleteResult>".encode())

    def _list(self, root: str, prefix: str, delimiter: str) -> None:
        keys = [
            path.removeprefix(f"{root}/") for path in self.bucket.files if path.startswith(f"{root}/{prefix}")
        ]
        files = [key for key in keys if not delimiter or delimiter not in key.removeprefix(prefix)]
        folders = {
            prefix + key.removeprefix(prefix).partition(delimiter)[0] + "/" for key in set(keys) - set(files)
        }
        listed = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in files)
        listed += "".join(f"<CommonPrefixes><Prefix>{each}</Prefix></CommonPrefixes>" for each in folders)
        self._answer(200, f"<ListBucketResult>{listed}</ListBucketResult>".encode())

    def do_DELETE(self) -> None:
        self.bucket.parts.pop(self._where()[0])
        self._answer(204)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, query = self._where()
        if "list-type" in query:
            self._list(path.rstrip("/"), query.get("prefix", [""])[0], query.get("delimiter", [""])[0])
        elif path in self.bucket.files:
            self._answer(200, self.bucket.files[path])
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>")


@contextmanager
def tiny_s3() -> Iterator[Bucket]:
    """One that is empty."""
    bucket = Bucket()
    handler = type("Handler", (_Handler,), {"bucket": bucket})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    bucket.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield bucket
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
