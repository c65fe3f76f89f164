"""A file server on 127.0.0.1 that can fail on purpose, for the tests and the demo.

Files are served with ETag, Last-Modified, Range and If-Range, as a good server does. A path may be
given faults, used up one per request: a status code instead of the file, the connection dropped
after so many bytes of the body, a Content-Length that is too large, no answer to Range.
"""

import os
import re
import sys
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

_CHUNK = 1 << 16


class Fault(NamedTuple):
    """How one answer is to go wrong. The defaults change nothing."""

    status: int = 0  # answer with this instead of the file
    headers: tuple = ()  # more header lines, as pairs
    drop_after: int | None = None  # close the connection after so many bytes of the body
    claim_more: int = 0  # promise so many bytes more than are sent
    ignore_range: bool = False
    wrong_range: bool = False  # 206, but not with the bytes that were asked for
    no_validator: bool = False  # neither ETag nor Last-Modified
    chunked: bool = False  # send the body in chunks, its length unsaid


class Request(NamedTuple):
    path: str
    headers: dict


class FileServer(ThreadingHTTPServer):
    """Serves a folder. ``faults[path]`` is a list used up from the front; ``always`` stays."""

    daemon_threads = True
    request_queue_size = 512  # who connects beyond the queue waits a second for the next try

    def __init__(self, folder, delay_s=0.0):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = Path(folder)
        self.delay_s = delay_s
        self.faults = {}
        self.always = {}
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        problem = sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1]
        if not isinstance(problem, ConnectionError):  # a client that went away is no news
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(Request(self.path, dict(self.headers.items())))
        waiting = self.server.faults.get(path)
        fault = waiting.pop(0) if waiting else self.server.always.get(path, Fault())
        time.sleep(self.server.delay_s)
        if fault.status:
            self._refuse(fault.status, fault.headers)
            return
        file = (self.server.folder / path.lstrip("/")).resolve()
        if not file.is_relative_to(self.server.folder.resolve()) or not file.is_file():
            self._refuse(404)
            return
        self._send(file, fault)

    def _refuse(self, status, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, file, fault):
        facts = file.stat()
        etag = f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"'
        start = 0 if fault.ignore_range else self._start(etag, facts.st_size)
        if start is None:
            self._refuse(416, [("Content-Range", f"bytes */{facts.st_size}")])
            return
        self.send_response(206 if start else 200)
        if start:
            sent_from = start + 1 if fault.wrong_range else start
            end = facts.st_size - 1
            self.send_header("Content-Range", f"bytes {sent_from}-{end}/{facts.st_size}")
        if fault.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(facts.st_size - start + fault.claim_more))
        if not fault.no_validator:
            self.send_header("ETag", etag)
            self.send_header("Last-Modified", formatdate(facts.st_mtime, usegmt=True))
        for name, value in fault.headers:
            self.send_header(name, value)
        self.end_headers()
        left = facts.st_size if fault.drop_after is None else fault.drop_after
        with open(file, "rb") as source:
            source.seek(start)
            while left and (chunk := source.read(min(_CHUNK, left))):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if fault.chunked else chunk)
                left -= len(chunk)
        if fault.chunked and fault.drop_after is None:
            self.wfile.write(b"0\r\n\r\n")
        if fault.drop_after is not None or fault.claim_more:
            self.close_connection = True

    def _start(self, etag, size):
        """The first byte to send: 0 without a valid Range, None if there is nothing there."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not found or self.headers.get("If-Range", etag) != etag:
            return 0
        return int(found[1]) if int(found[1]) < size else None

    def log_message(self, format, *args):
        """Quiet: what was asked is in ``server.requests``."""


@contextmanager
def serving(folder, delay_s=0.0):
    """A server in a thread of this process, gone at the end of the block."""
    server = FileServer(folder, delay_s)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main():
    """``python -m tools.file_server FOLDER [DELAY_S]``: prints its address; ends with its parent.

    The parent keeps our standard input open; the end of it, however it comes, is our end.
    """
    delay_s = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    with serving(sys.argv[1], delay_s) as server:
        print(server.url, flush=True)
        while os.read(0, 1 << 10):
            continue


if __name__ == "__main__":
    main()
