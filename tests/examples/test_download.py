"""examples/download.py and download_async.py against a server that fails on purpose."""

import asyncio
import hashlib
import json
import os
import random
import socket
import threading
from pathlib import Path

import download
import download_async
import pytest

from tools.file_server import Fault

SIZE = 300_000


@pytest.fixture
def body(server):
    content = random.Random(3).randbytes(SIZE)
    (server.folder / "data.bin").write_bytes(content)
    return content


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "got"


def fetch_by_coroutine(*words, **options):
    return asyncio.run(download_async.fetch(*words, **options))


VARIANTS = {"thread": download.fetch, "coroutine": fetch_by_coroutine}
_variant = []


@pytest.fixture(params=VARIANTS, autouse=True)
def variant(request):
    """Each test of `fetch` is one of both."""
    _variant.append(VARIANTS[request.param])
    yield request.param
    _variant.clear()


def fetch_url(*words, **options):
    return _variant[0](*words, **options)


def fetch(server, folder, path="data.bin", **options):
    return fetch_url(f"{server.url}/{path}", folder, backoff_s=0.001, **options)


def ranges(server):
    return [request.headers.get("Range") for request in server.requests]


def no_parts(folder):
    return not list(folder.glob("*.part"))


def test_plain_download(server, folder, body):
    digits = hashlib.sha256(body).hexdigest()
    done = fetch(server, folder, checksum=f"sha256:{digits}")
    assert done == {
        "file": str(folder / "data.bin"),
        "bytes": SIZE,
        "attempts": 1,
        "resumed_at": None,
    }
    assert (folder / "data.bin").read_bytes() == body
    assert no_parts(folder)


def test_a_finished_file_is_not_fetched_again(server, folder, body):
    fetch(server, folder)
    assert fetch(server, folder)["attempts"] == 0
    assert len(server.requests) == 1


def test_drop_in_mid_body_resumes_with_if_range(server, folder, body):
    server.faults["/data.bin"] = [Fault(drop_after=100_000), Fault(drop_after=50_000)]
    done = fetch(server, folder)
    assert (folder / "data.bin").read_bytes() == body
    assert ranges(server) == [None, "bytes=100000-", "bytes=150000-"]
    assert all(request.headers["If-Range"] for request in server.requests[1:])
    assert (done["attempts"], done["resumed_at"]) == (3, 150_000)


def test_chunked_bodies(server, folder, body):
    server.faults["/data.bin"] = [Fault(chunked=True, drop_after=100_000), Fault(chunked=True)]
    done = fetch(server, folder)
    assert (folder / "data.bin").read_bytes() == body
    assert (done["attempts"], done["resumed_at"]) == (2, 100_000)


def test_a_part_of_an_earlier_run_is_continued(server, folder, body):
    server.faults["/data.bin"] = [Fault(drop_after=120_000), *[Fault(status=404)]]
    with pytest.raises(OSError, match="HTTP 404"):
        fetch(server, folder)
    assert (folder / "data.bin.part").stat().st_size == 120_000
    assert not (folder / "data.bin").exists()
    done = fetch(server, folder)
    assert done["resumed_at"] == 120_000
    assert (folder / "data.bin").read_bytes() == body


def test_a_part_is_dropped_when_the_file_has_changed(server, folder, body):
    server.faults["/data.bin"] = [Fault(drop_after=120_000), Fault(status=404)]
    with pytest.raises(OSError, match="HTTP 404"):
        fetch(server, folder)
    (server.folder / "data.bin").write_bytes(body[::-1])
    os.utime(server.folder / "data.bin", (1, 1))
    assert fetch(server, folder)["resumed_at"] is None
    assert (folder / "data.bin").read_bytes() == body[::-1]


def test_server_errors_are_retried(server, folder, body):
    server.faults["/data.bin"] = [Fault(status=500), Fault(status=500)]
    assert fetch(server, folder)["attempts"] == 3
    assert (folder / "data.bin").read_bytes() == body


def test_retry_after_is_obeyed(server, folder, body, monkeypatch):
    pauses = []

    async def note(seconds):
        pauses.append(seconds)

    monkeypatch.setattr(download, "_pause", pauses.append)
    monkeypatch.setattr(download_async, "_pause", note)
    server.faults["/data.bin"] = [
        Fault(status=503, headers=(("Retry-After", "7"),)),
        Fault(status=503, headers=(("Retry-After", "100000"),)),
        Fault(status=429, headers=(("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"),)),
    ]
    assert fetch(server, folder)["attempts"] == 4
    assert pauses == [7, download.LONGEST_PAUSE_S, 0]


def test_gives_up_after_the_attempts_asked_for(server, folder, body):
    server.always["/data.bin"] = Fault(status=502)
    with pytest.raises(OSError, match="gave up after 3 attempts: HTTP 502"):
        fetch(server, folder, attempts=3)
    assert len(server.requests) == 3
    assert not (folder / "data.bin").exists()


def test_attempts_that_bring_bytes_do_not_count(server, folder, body):
    server.always["/data.bin"] = Fault(drop_after=50_000)
    assert fetch(server, folder, attempts=2)["attempts"] == 6
    assert (folder / "data.bin").read_bytes() == body


def test_without_range_support_it_starts_over(server, folder, body):
    server.faults["/data.bin"] = [Fault(drop_after=100_000), Fault(ignore_range=True)]
    done = fetch(server, folder)
    assert done["resumed_at"] is None
    assert (folder / "data.bin").read_bytes() == body


def test_always_dropped_without_range_support_ends(server, folder, body):
    server.always["/data.bin"] = Fault(drop_after=100_000, ignore_range=True)
    with pytest.raises(OSError, match="gave up after 4 attempts"):
        fetch(server, folder, attempts=3)
    assert len(server.requests) == 4  # the first one brought something


def test_without_validator_a_part_is_not_trusted(server, folder, body):
    server.faults["/data.bin"] = [Fault(drop_after=100_000, no_validator=True)]
    fetch(server, folder)
    assert ranges(server) == [None, None]
    assert (folder / "data.bin").read_bytes() == body


def test_a_wrong_part_is_not_appended(server, folder, body):
    server.faults["/data.bin"] = [Fault(drop_after=100_000), Fault(wrong_range=True)]
    fetch(server, folder)
    assert ranges(server) == [None, "bytes=100000-", None]
    assert (folder / "data.bin").read_bytes() == body


def test_too_large_content_length_is_an_error_not_a_short_file(server, folder, body):
    server.always["/data.bin"] = Fault(claim_more=10, ignore_range=True)
    with pytest.raises(OSError, match="gave up"):
        fetch(server, folder, attempts=2)
    assert not (folder / "data.bin").exists()
    server.always.clear()
    fetch(server, folder)  # the part is whole by now: 416 tells us so
    assert (folder / "data.bin").read_bytes() == body


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_client_errors_are_not_retried(server, folder, body, status):
    server.faults["/data.bin"] = [Fault(status=status)]
    with pytest.raises(OSError, match=f"HTTP {status}"):
        fetch(server, folder)
    assert len(server.requests) == 1


def test_wrong_checksum(server, folder, body):
    with pytest.raises(download.ChecksumMismatch, match="expected 0000"):
        fetch(server, folder, checksum="0" * 64, attempts=2)
    assert not (folder / "data.bin").exists()
    assert no_parts(folder)


def test_a_spoiled_part_is_fetched_anew(server, folder, body):
    server.faults["/data.bin"] = [Fault(drop_after=100_000), Fault(status=404)]
    with pytest.raises(OSError, match="404"):
        fetch(server, folder)
    with open(folder / "data.bin.part", "r+b") as part:
        part.write(b"spoiled")
    done = fetch(server, folder, checksum=hashlib.sha256(body).hexdigest())
    assert (folder / "data.bin").read_bytes() == body
    assert done["attempts"] == 2


def test_connection_refused_is_retried_then_reported(folder):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: nobody else can take it
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        with pytest.raises(OSError, match="gave up after 2 attempts"):
            fetch_url(url, folder, attempts=2, backoff_s=0.001)


def test_two_urls_with_one_basename(server, folder):
    for name in ("one", "two", "three"):
        (server.folder / name).mkdir()
        (server.folder / name / "a.tar.gz").write_text(name)
    paths = [f"{name}/a.tar.gz" for name in ("one", "two", "three")]
    files = [fetch(server, folder, path)["file"] for path in paths]
    assert [Path(file).read_text() for file in files] == ["one", "two", "three"]
    assert files[0] == str(folder / "a.tar.gz")
    assert all(file.endswith(".tar.gz") for file in files)
    # the same names again, whoever comes first
    assert [fetch(server, folder, path)["file"] for path in reversed(paths)] == files[::-1]


def test_queries_make_different_files(server, folder, body):
    first = fetch(server, folder, "data.bin?version=1")["file"]
    second = fetch(server, folder, "data.bin?version=2")["file"]
    assert first != second


def test_a_file_that_was_there_before_is_left_alone(server, folder, body):
    folder.mkdir()
    (folder / "data.bin").write_text("mine")
    done = fetch(server, folder)
    assert (folder / "data.bin").read_text() == "mine"
    assert Path(done["file"]).read_bytes() == body


def test_many_at_once_with_few_names(server, folder):
    """Four URLs of one basename, each asked for by four threads at once."""
    for number in range(4):
        (server.folder / str(number)).mkdir()
        (server.folder / str(number) / "same.bin").write_bytes(bytes([number]) * 200_000)
    start = threading.Barrier(16)
    got, errors = {}, []

    def work(number):
        try:
            start.wait(30)
            got.setdefault(number, set()).add(fetch(server, folder, f"{number}/same.bin")["file"])
        except Exception as problem:
            errors.append(problem)

    threads = [threading.Thread(target=work, args=(n % 4,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(server.requests) == 4
    files = {number: names.pop() for number, names in got.items() if len(names) == 1}
    assert len(set(files.values())) == 4
    for number, file in files.items():
        assert Path(file).read_bytes() == bytes([number]) * 200_000


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://h/a/b.txt", "b.txt"),
        ("http://h/a/", "a"),
        ("http://h/", "h"),
        ("http://h/..%2F..%2Fetc%2Fpasswd", "_.._etc_passwd"),
        ("http://h/.hidden", "hidden"),
        ("http://h/sch%C3%B6n.txt", "schön.txt"),
        ("http://h/x%00y", "x_y"),
    ],
)
def test_names_are_safe(url, name):
    assert download._name(url) == name


def test_long_names_fit(server, folder):
    (server.folder / ("n" * 240)).write_text("x")
    done = fetch(server, folder, "n" * 240)
    assert Path(done["file"]).read_text() == "x"


@pytest.mark.parametrize("url", ["ftp://h/x", "file:///etc/passwd", "data.bin", ""])
def test_other_schemes_are_refused(url, folder):
    with pytest.raises(ValueError, match="not an http"):
        fetch_url(url, folder)
    assert not folder.exists()


@pytest.mark.parametrize("checksum", ["md99:00", "sha256:zz", "sha256:00", "sha256:"])
def test_bad_checksums_are_refused(checksum, folder):
    with pytest.raises(ValueError, match="checksum"):
        fetch_url("http://127.0.0.1:9/x", folder, checksum)
    assert not folder.exists()


def test_many_coroutines_with_few_names(server, folder):
    """Four URLs of one basename, each asked for by four coroutines of one loop at once."""
    for number in range(4):
        (server.folder / str(number)).mkdir()
        (server.folder / str(number) / "same.bin").write_bytes(bytes([number]) * 200_000)

    async def main():
        urls = [f"{server.url}/{number % 4}/same.bin" for number in range(16)]
        return await asyncio.gather(*[download_async.fetch(url, folder) for url in urls])

    files = [done["file"] for done in asyncio.run(main())]
    assert len(server.requests) == 4
    assert len(set(files)) == 4
    assert files[:4] * 4 == files
    for number, file in enumerate(files[:4]):
        assert Path(file).read_bytes() == bytes([number]) * 200_000


def test_program(server, folder, body, run_example, variant):
    (server.folder / "other.txt").write_text("hello")
    server.faults["/data.bin"] = [Fault(drop_after=10_000)]
    digits = hashlib.sha256(body).hexdigest()
    done = run_example(
        "download.py",
        *["--to", folder, "-j", 2],
        *(["--coroutines"] if variant == "coroutine" else []),
        f"{server.url}/data.bin#sha256:{digits}",
        f"{server.url}/other.txt",
        f"{server.url}/missing.txt",
    )
    assert done.returncode == 1
    assert (folder / "data.bin").read_bytes() == body
    assert (folder / "other.txt").read_text() == "hello"
    (failure,) = done.stderr.splitlines()
    assert failure.startswith("failed: ") and "missing.txt: HTTP 404" in failure
    assert len(done.stdout.splitlines()) == 2
    notes = [json.loads(note.read_text()) for note in (folder / ".downloads").glob("*.json")]
    assert len(notes) == 3


@pytest.mark.parametrize("words", [["-j", "0", "http://h/x"], ["http://h/x#sha256:12"], []])
def test_program_refuses_bad_options(run_example, words):
    done = run_example("download.py", *words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
