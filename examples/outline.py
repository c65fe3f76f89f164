"""What is in web pages: title, headings, links, words; fetched, read and noted side by side.

    python examples/outline.py --to pages https://example.org/ https://example.org/news.html

Three stages, each of its own kind. Fetching waits for the network: coroutines, many at a time
(those of ``download_async.py``, with its promises). Reading HTML keeps a CPU busy: processes.
Noting down is a blocking call on a disk: threads. ``PAGE.json`` stands beside each page.

``--one-by-one`` does the same work as a plain loop, to see what the pipeline is worth.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import oxgang
from download_async import fetch

_HEADINGS = {"h1", "h2", "h3"}
_UNSEEN = {"script", "style"}


class _Reader(HTMLParser):
    def __init__(self, url):
        super().__init__()
        self.url = url
        self.title = ""
        self.headings = []
        self.links = []
        self.words = Counter()
        self._open = []

    def handle_starttag(self, tag, attrs):
        if tag in _HEADINGS or tag in _UNSEEN or tag == "title":
            self._open.append(tag)
        if tag in _HEADINGS:
            self.headings.append("")
        if tag == "a" and (link := dict(attrs).get("href")):
            self.links.append(urljoin(self.url, link))

    def handle_endtag(self, tag):
        if tag in self._open:
            # whatever was left open inside ends with it
            del self._open[self._open.index(tag) :]

    def handle_data(self, data):
        inside = self._open[-1] if self._open else None
        if inside in _UNSEEN:
            return
        if inside == "title":
            self.title += data
        elif inside in _HEADINGS:
            self.headings[-1] += data
        self.words.update(word.lower() for word in data.split() if word.isalpha())


async def get(url, folder):
    """Stage 1: the page as a file."""
    fetched = await fetch(url, folder)
    return url, fetched["file"]


def outline(page):
    """Stage 2: what is in it."""
    url, file = page
    reader = _Reader(url)
    # a page may say what it likes of its encoding; words that are not UTF-8 are no loss here
    reader.feed(Path(file).read_text("utf-8", errors="replace"))
    reader.close()
    return file, {
        "url": url,
        "title": " ".join(reader.title.split()),
        "headings": [" ".join(heading.split()) for heading in reader.headings],
        "links": reader.links,
        "words": sum(reader.words.values()),
        "most": reader.words.most_common(10),
    }


def note(outlined):
    """Stage 3: its place on the disk."""
    file, content = outlined
    noted = Path(file + ".json")
    noted.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    return f"{noted}  {content['words']} words, {len(content['links'])} links"


def side_by_side(urls, folder, at_once):
    pages = oxgang.pipeline(
        oxgang.stage(partial(get, folder=folder), limit=at_once),
        oxgang.stage(outline, model="process"),
        oxgang.stage(note, model="thread", limit=4),
    )
    return pages.map(urls, return_exceptions=True, progress=sys.stderr.isatty())


def one_by_one(urls, folder, _at_once):
    with asyncio.Runner() as runner:
        for url in urls:
            try:
                yield note(outline(runner.run(get(url, folder))))
            except Exception as error:
                yield error


def main(words=None):
    parser = argparse.ArgumentParser(prog="outline.py", description=__doc__.splitlines()[0])
    parser.add_argument("urls", nargs="+", metavar="URL")
    parser.add_argument("--to", default=".", metavar="FOLDER")
    parser.add_argument("-j", "--at-once", type=int, default=50, metavar="N", help="pages fetched")
    parser.add_argument("--one-by-one", action="store_true", help="as a plain loop")
    options = parser.parse_args(words)
    if options.at_once < 1:
        parser.error("--at-once: at least 1 is needed")
    began = time.perf_counter()
    way = one_by_one if options.one_by_one else side_by_side
    urls = list(dict.fromkeys(options.urls))
    failed = 0
    for url, outcome in zip(urls, way(urls, options.to, options.at_once), strict=True):
        if isinstance(outcome, Exception):
            failed += 1
            print(f"failed: {url}: {outcome}", file=sys.stderr)
        else:
            print(outcome)
    print(f"{len(urls)} pages in {time.perf_counter() - began:.2f} s", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
