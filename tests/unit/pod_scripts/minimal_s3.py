"""A minimal S3 server over real HTTP: uploads, downloads, lists and deletions. It accepts every signature."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Bucket:
    """Content and behavior of the server.

    `files` and `content_types` are by path, `parts` are those of unfinished multipart uploads, `part_sizes` the sizes
    of all parts. `denied_part`: number of the part that it rejects, which no real store can be made to do.
    `denies_lists_of`: beginning of the keys that it does not list. `denies_deletion`: it does not delete files, and
    answers with 200 as S3 does. `is_older`: it knows no CRCs and requires Content-MD5 for deletions. `upload_headers`:
    the headers that each upload must have.
    """

    def __init__(self) -> None:
        self.url = ""
        self.files: dict[str, bytes] = {}
        self.content_types: dict[str, str] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.part_sizes: list[int] = []
        self.denied_part = 0
        self.denies_deletion = False
        self.denies_lists_of = ""
        self.is_older = False
        self.upload_headers: dict[str, str] = {}


class _Handler(BaseHTTPRequestHandler):
    """Handler of one request. A subclass sets the bucket."""

    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def log_message(self, *args: object) -> None:
        """Log nothing."""

    def _respond(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _path_and_query(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return parts.path, parse_qs(parts.query, keep_blank_values=True)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _accepts(self, query: dict[str, list[str]]) -> bool:
        """Whether the store accepts the headers of the request. Otherwise the response is sent."""
        has_crc = any(name.lower().startswith(("x-amz-checksum", "x-amz-trailer")) for name in self.headers)
        lacks_md5 = "delete" in query and "Content-MD5" not in self.headers
        if self.bucket.is_older and (has_crc or lacks_md5):
            self._respond(400, b"<Error><Code>InvalidRequest</Code></Error>")
            return False
        creates = "uploads" in query or (self.command == "PUT" and "partNumber" not in query)
        if creates and not self.bucket.upload_headers.items() <= dict(self.headers).items():
            self._respond(403, b"<Error><Code>AccessDenied</Code></Error>")
            return False
        return True

    def do_PUT(self) -> None:
        path, query = self._path_and_query()
        body = self._body()
        if not self._accepts(query):
            return
        if "partNumber" not in query:
            self.bucket.files[path] = body
            self.bucket.content_types[path] = self.headers.get("Content-Type", "")
        elif int(query["partNumber"][0]) == self.bucket.denied_part:
            self._respond(403, b"<Error><Code>AccessDenied</Code></Error>")
            return
        else:
            self.bucket.parts[path][int(query["partNumber"][0])] = body
            self.bucket.part_sizes.append(len(body))
        self._respond(200, ETag='"e"')

    def do_POST(self) -> None:
        path, query = self._path_and_query()
        body = self._body()
        if not self._accepts(query):
            return
        if "delete" in query:
            self._delete([key.decode() for key in re.findall(rb"<Key>([^<]+)</Key>", body)])
            return
        if "uploads" in query:
            self.bucket.parts[path] = {}
            self.bucket.content_types[path] = self.headers.get("Content-Type", "")
            self._respond(
                200,
                b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
            )
            return
        parts = self.bucket.parts.pop(path)
        numbers = [int(number) for number in re.findall(rb"<PartNumber>(\d+)</PartNumber>", body)]
        self.bucket.files[path] = b"".join(parts[number] for number in numbers)
        self._respond(200, b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>")

    def _delete(self, keys: list[str]) -> None:
        errors = ""
        for key in keys:
            if self.bucket.denies_deletion:
                errors += f"<Error><Key>{key}</Key><Code>AccessDenied</Code></Error>"
            else:
                del self.bucket.files[f"{self._path_and_query()[0].rstrip('/')}/{key}"]
        self._respond(200, f"<DeleteResult>{errors}</DeleteResult>".encode())

    def _list(self, root: str, prefix: str, delimiter: str) -> None:
        keys = [
            path.removeprefix(f"{root}/") for path in self.bucket.files if path.startswith(f"{root}/{prefix}")
        ]
        files = [key for key in keys if not delimiter or delimiter not in key.removeprefix(prefix)]
        folders = {
            prefix + key.removeprefix(prefix).partition(delimiter)[0] + "/" for key in set(keys) - set(files)
        }
        entries = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in files)
        entries += "".join(
            f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>" for folder in folders
        )
        self._respond(200, f"<ListBucketResult>{entries}</ListBucketResult>".encode())

    def do_DELETE(self) -> None:
        self.bucket.parts.pop(self._path_and_query()[0])
        self._respond(204)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, query = self._path_and_query()
        prefix = query.get("prefix", [""])[0]
        if (
            "list-type" in query
            and self.bucket.denies_lists_of
            and prefix.startswith(self.bucket.denies_lists_of)
        ):
            self._respond(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
        elif "list-type" in query:
            self._list(path.rstrip("/"), query.get("prefix", [""])[0], query.get("delimiter", [""])[0])
        elif path in self.bucket.files:
            self._respond(200, self.bucket.files[path])
        else:
            self._respond(404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>")


@contextmanager
def minimal_s3() -> Iterator[Bucket]:
    """Run a server with an empty bucket."""
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
