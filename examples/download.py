"""URLs to files: streamed, retried with back-off, resumed, checked; one task per URL.

    oxgang map examples/download.py:fetch --from urls.txt --model thread
    python examples/download.py --to files https://example.org/a.zip https://example.org/b.zip

(`download_async.py` is the same for coroutines.)

A file appears under its own name only when it is whole: until then it grows as ``NAME.part``. What
belongs to which URL is noted in ``.downloads/``, so two URLs that end in the same name never share
a file (the later one gets ``NAME-<8 digits of a hash>``), a broken download goes on where it
stopped, in this run or the next, and a finished one is not fetched again. A part is continued only
if the server can confirm, by ETag or date, that the file is still the same.
"""

import argparse
import fcntl
import hashlib
import json
import os
import random
import re
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from itertools import repeat
from pathlib import Path
from urllib.parse import unquote, urlsplit

import oxgang
import urllib3

_pause = time.sleep
RETRIED = {408, 425, 429, 500, 502, 503, 504}
TIMEOUT = urllib3.Timeout(connect=10, read=30)  # of one wait, not of the whole file
LONGEST_PAUSE_S = 30
CHUNK = 1 << 16
_CLIENT_LOCK = threading.Lock()
_CLIENTS = {}  # process id -> connection pool: sockets must not be shared by forked processes


def fetch(url, directory=".", checksum=None, attempts=5, backoff_s=0.5):
    """Download one URL. Returns a dict with ``file``, ``bytes``, ``attempts``, ``resumed_at``.

    ``checksum`` is ``"sha256:<hex>"`` (any algorithm of hashlib) or bare SHA-256 digits.
    ``attempts`` is how often in a row a try may end without the file having grown.
    """
    job = Job(url, directory, checksum, attempts, backoff_s)
    with job.place.locked():
        if job.is_done():
            verify(url, job.place.file, job.checksum)
            return job.told()
        while True:
            try:
                job.began_at(_stream(url, job.place))
                verify(url, job.place.part, job.checksum)
            except (Again, ChecksumMismatch, urllib3.exceptions.HTTPError) as problem:
                _pause(job.pause_after(problem))
            else:
                job.place.finish()
                return job.told()


class Job:
    """One URL on its way to a file: the tries, and what they came to."""

    def __init__(self, url, directory, checksum, attempts, backoff_s):
        self.url = url
        self.checksum = _checksum(checksum)
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ValueError(f"{url!r}: not an http:// or https:// address")
        if attempts < 1:
            raise ValueError(f"attempts={attempts}: at least 1 is needed")
        self.place = Place.claim(url, Path(directory))
        self.attempts = attempts
        self.backoff_s = backoff_s
        self.tries = self.fruitless = 0
        self.most = self.place.part_size()
        self.resumed_at = None

    def is_done(self):
        """Whether an earlier run, or somebody else just now, has brought the file."""
        self.most = self.place.part_size()
        return self.place.file.exists()

    def began_at(self, offset):
        """A try has come to its end, from this offset on; None: from the first byte."""
        self.tries += 1
        self.resumed_at = offset or self.resumed_at

    def pause_after(self, failure):
        """Seconds until the next try, after one that failed; raises if there is none."""
        if isinstance(failure, ChecksumMismatch):
            # a stale part may be to blame: once more, from the first byte
            self.place.forget_part()
        else:
            self.tries += 1
        size = self.place.part_size()
        self.fruitless = 0 if size > self.most else self.fruitless + 1
        self.most = max(self.most, size)
        if self.fruitless >= self.attempts:
            if isinstance(failure, ChecksumMismatch):
                raise failure
            text = f"{self.url}: gave up after {self.tries} attempts: {failure}"
            raise OSError(text) from failure
        pause = failure.pause_s if isinstance(failure, Again) else None
        if pause is None:
            pause = self.backoff_s * 2**self.fruitless * random.uniform(0.25, 0.5)
        return min(pause, LONGEST_PAUSE_S)

    def told(self):
        """What ``fetch`` returns."""
        size = self.place.file.stat().st_size
        return {
            "file": str(self.place.file),
            "bytes": size,
            "attempts": self.tries,
            "resumed_at": self.resumed_at,
        }


class ChecksumMismatch(ValueError):
    """The whole file arrived, and is not the one that was asked for."""


class Again(Exception):
    """The server asks to come back; ``pause_s`` is when, if it said so."""

    def __init__(self, message, pause_s=None):
        super().__init__(message)
        self.pause_s = pause_s


def _stream(url, place):
    """One attempt. Returns the offset at which it went on, or None for a fresh start."""
    headers, offset = asked_for(place)
    response = _client().request(
        "GET", url, headers=headers, preload_content=False, timeout=TIMEOUT, retries=_REDIRECTS
    )
    try:
        answer = response.status, response.reason, response.headers
        whole, resumed = judged(url, place, offset, answer)
        if whole:
            return offset
        with opened(place, response.headers, resumed) as part:
            # read1, not stream: what came before a break is kept, however little
            while chunk := response.read1(CHUNK):
                part.write(chunk)
        return offset if resumed else None
    finally:
        # a half-read connection cannot be used again; a fully read one is already back
        response.close()


def asked_for(place):
    """What to ask the server for: headers, and the offset at which the part goes on."""
    headers = {"Accept-Encoding": "identity"}  # the bytes that sizes and checksums speak of
    offset = place.part_size()
    validator = place.note().get("validator")
    if offset and validator:
        return headers | {"Range": f"bytes={offset}-", "If-Range": validator}, offset
    return headers, 0


def judged(url, place, offset, answer):
    """What the server's answer (status, reason, headers) means: whether the part is whole already,
    and whether what comes goes on where it ends. Raises if nothing that can be used comes."""
    status, reason, headers = answer
    if status == 416 and offset:
        # Nothing is left to send, or the file has shrunk: only the first is good.
        if headers.get("Content-Range") == f"bytes */{offset}":
            return True, True
        place.forget_part()
        raise Again("the server has no such part any more")
    if status in RETRIED or status >= 500:
        raise Again(f"HTTP {status} {reason}", _retry_after(headers))
    if status not in (200, 206):
        raise OSError(f"{url}: HTTP {status} {reason}")
    if status == 206 and not _goes_on_at(headers, offset):
        place.forget_part()
        raise Again("the server sent another part than the one asked for")
    return False, status == 206


def opened(place, headers, resumed):
    """The part, to be gone on with or begun."""
    part = open(place.part, "ab" if resumed else "wb")  # noqa: SIM115 - whoever asks closes it
    if not resumed:  # emptied first: old bytes must never stand under a new validator
        place.remember(validator=_validator(headers))
    return part


# Redirects are urllib3's business; trying again is ours, since only we know about the part.
_REDIRECTS = urllib3.Retry(
    total=10, connect=0, read=0, other=0, status=0, redirect=10, respect_retry_after_header=False
)


def _goes_on_at(headers, offset):
    found = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return bool(found) and offset > 0 and int(found[1]) == offset


def _validator(headers):
    """What If-Range may name: a strong ETag, or else the date of the last change."""
    etag = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return headers.get("Last-Modified")


def _retry_after(headers):
    text = headers.get("Retry-After", "")
    if text.isdigit():
        return int(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _client():
    with _CLIENT_LOCK:
        pid = os.getpid()
        if pid not in _CLIENTS:
            _CLIENTS[pid] = urllib3.PoolManager(num_pools=32, maxsize=32)
        return _CLIENTS[pid]


def _checksum(text):
    if text is None or text == "":
        return None
    algorithm, _, digits = text.rpartition(":")
    algorithm = (algorithm or "sha256").lower()
    if algorithm not in hashlib.algorithms_available or algorithm.startswith("shake"):
        raise ValueError(f"checksum {text!r}: unknown algorithm; write sha256:<hex digits>")
    if not re.fullmatch(r"[0-9a-fA-F]+", digits):
        raise ValueError(f"checksum {text!r}: not hex digits; write sha256:<hex digits>")
    if len(digits) != 2 * hashlib.new(algorithm).digest_size:
        raise ValueError(f"checksum {text!r}: {len(digits)} digits are not a whole {algorithm}")
    return algorithm, digits.lower()


def verify(url, path, checksum):
    if checksum is None:
        return
    algorithm, wanted = checksum
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != wanted:
        raise ChecksumMismatch(f"{url}: {algorithm} is {found}, expected {wanted}")


class Place:
    """Where the file of one URL lives: a name that no other URL has, its part and its note."""

    def __init__(self, directory, name):
        self.file = directory / name
        self.part = directory / f"{name}.part"
        self._note = directory / ".downloads" / f"{name}.json"

    @classmethod
    def claim(cls, url, directory):
        (directory / ".downloads").mkdir(parents=True, exist_ok=True)
        name = _name(url)
        stem, dot, suffix = name.partition(".")
        digits = hashlib.sha256(url.encode()).hexdigest()
        # the plain name, then one that only this URL has: the longest hash cannot be taken
        for extra in ("", f"-{digits[:8]}", f"-{digits}"):
            place = cls(directory, f"{stem}{extra}{dot}{suffix}")
            if place._take(url):
                return place
        raise OSError(f"{url}: every name for it in {directory} is taken by other files")

    def _take(self, url):
        if not self._note.exists():
            if self.file.exists() or self.part.exists():
                return False  # a file that was here before us
            fresh = self._write_beside({"url": url})
            try:
                os.link(fresh, self._note)  # unlike a rename, this never replaces another claim
            except FileExistsError:
                return self.note().get("url") == url
            finally:
                os.unlink(fresh)
        return self.note().get("url") == url

    def lock_file(self):
        """What is to be locked, open; the kernel frees it on death."""
        return open(self._note.with_suffix(".lock"), "w")

    @contextmanager
    def locked(self):
        """One at a time per file, across threads and processes."""
        with self.lock_file() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def note(self):
        return json.loads(self._note.read_text())

    def remember(self, **facts):
        os.replace(self._write_beside({**self.note(), **facts}), self._note)

    def part_size(self):
        try:
            return self.part.stat().st_size
        except FileNotFoundError:
            return 0

    def forget_part(self):
        self.part.unlink(missing_ok=True)

    def finish(self):
        with open(self.part, "rb") as part:
            os.fsync(part.fileno())
        os.replace(self.part, self.file)

    def _write_beside(self, facts):
        handle, path = tempfile.mkstemp(dir=self._note.parent)
        with open(handle, "w") as file:
            json.dump(facts, file)
        return path


def _name(url):
    """A safe file name from the end of the URL's path."""
    last = unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
    name = re.sub(r"[\x00-\x1f/\\:*?\"<>|]", "_", last).lstrip(".")
    while len(name.encode()) > 150:  # room for the hash and for ".part"
        name = name[1:]
    return name or urlsplit(url).hostname


def main(words=None):
    parser = argparse.ArgumentParser(prog="download.py", description=__doc__.splitlines()[0])
    parser.add_argument("urls", nargs="+", metavar="URL", help="URL, or URL#sha256:DIGITS")
    parser.add_argument("--to", default=".", metavar="FOLDER")
    parser.add_argument("-j", "--workers", type=int, default=8, metavar="N")
    parser.add_argument("--coroutines", action="store_true", help="instead of threads")
    parser.add_argument("--attempts", type=int, default=5, metavar="N")
    options = parser.parse_args(words)
    for name in ("workers", "attempts"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: at least 1 is needed")
    checksums = {}
    for word in dict.fromkeys(options.urls):
        url, _, checksum = word.partition("#")
        try:
            _checksum(checksum)
        except ValueError as problem:
            parser.error(str(problem))
        checksums[url] = checksum
    function, model = fetch, "thread"
    if options.coroutines:
        from download_async import fetch as function

        model = "coroutine"
    outcomes = oxgang.map(
        function,
        *(checksums, repeat(options.to), checksums.values(), repeat(options.attempts)),
        model=model,
        max_workers=options.workers,
        return_exceptions=True,
        progress=sys.stderr.isatty(),
    )
    failed = 0
    for url, outcome in zip(checksums, outcomes, strict=True):
        if isinstance(outcome, Exception):
            failed += 1
            text = str(outcome)
            print(f"failed: {text if url in text else f'{url}: {text}'}", file=sys.stderr)
        else:
            print(f"{outcome['file']}  {outcome['bytes']} bytes")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
