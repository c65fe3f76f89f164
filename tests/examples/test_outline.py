"""examples/outline.py: both ways, on pages of a server of the tests."""

import json

import pytest

from tools.file_server import Fault

PAGE = """<html><head><title> Page
 {number} </title><style>p {{ color: red }}</style></head><body>
<h1>Of <b>Hay</b></h1><p>hay hay needle <a href="page-0.html">first</a><script>var x = 1;</script>
<h2>Open
"""


@pytest.fixture
def urls(server):
    for number in range(6):
        (server.folder / f"page-{number}.html").write_text(PAGE.format(number=number))
    return [f"{server.url}/page-{number}.html" for number in range(6)]


@pytest.mark.parametrize("way", [[], ["--one-by-one"]])
def test_pages_are_outlined(run_example, urls, tmp_path, way):
    done = run_example("outline.py", "--to", tmp_path / "got", *way, *urls)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("6 pages in ")
    assert len(done.stdout.splitlines()) == 6
    for number, url in enumerate(urls):
        noted = json.loads((tmp_path / "got" / f"page-{number}.html.json").read_text())
        assert noted == {
            "url": url,
            "title": f"Page {number}",
            "headings": ["Of Hay", "Open"],
            "links": [urls[0]],
            "words": 8,
            "most": [["hay", 3], ["page", 1], ["of", 1], ["needle", 1], ["first", 1], ["open", 1]],
        }


def test_a_page_that_is_not_there(run_example, server, urls, tmp_path):
    server.always["/page-3.html"] = Fault(status=404)
    done = run_example("outline.py", "--to", tmp_path / "got", "-j", "2", *urls)
    assert done.returncode == 1
    assert "failed: " + urls[3] in done.stderr and "404" in done.stderr
    assert len(done.stdout.splitlines()) == 5


def test_bad_options(run_example):
    done = run_example("outline.py", "-j", "0", "http://127.0.0.1:9/")
    assert done.returncode == 2 and "at least 1" in done.stderr
