"""``download.py`` with coroutines: the same promises, any number of URLs on one event loop.

    oxgang map examples/download_async.py:fetch --from urls.txt -j 200
    python examples/download.py --coroutines -j 200 --to files https://example.org/a.zip ...

What waits for the network is asynchronous. What looks at a whole file (a checksum, the last write
to the disk) goes to a thread, so that the others are not held up.
"""

import asyncio
import fcntl
import weakref
from contextlib import asynccontextmanager

import aiohttp
from download import (
    CHUNK,
    Again,
    ChecksumMismatch,
    Job,
    asked_for,
    judged,
    opened,
    verify,
)

_pause = asyncio.sleep
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30)
_TURN_S = 0.02  # between two looks at a lock that another program, or another of us, holds
_SESSIONS = weakref.WeakKeyDictionary()  # loop -> what holds its session, and the session


async def fetch(url, directory=".", checksum=None, attempts=5, backoff_s=0.5):
    """Download one URL; as ``download.fetch``."""
    job = Job(url, directory, checksum, attempts, backoff_s)
    async with _locked(job.place):
        if job.is_done():
            await asyncio.to_thread(verify, url, job.place.file, job.checksum)
            return job.told()
        while True:
            try:
                job.began_at(await _stream(url, job.place))
                if job.checksum is not None:
                    await asyncio.to_thread(verify, url, job.place.part, job.checksum)
            except (Again, ChecksumMismatch, aiohttp.ClientError, TimeoutError) as problem:
                await _pause(job.pause_after(problem))
            else:
                await asyncio.to_thread(job.place.finish)
                return job.told()


async def _stream(url, place):
    """One attempt; as ``download._stream``."""
    headers, offset = asked_for(place)
    session = await _session()
    async with session.get(url, headers=headers) as response:
        answer = response.status, response.reason, response.headers
        whole, resumed = judged(url, place, offset, answer)
        if whole:
            return offset
        with opened(place, response.headers, resumed) as part:
            # what came before a break is kept, however little
            async for chunk in response.content.iter_any():
                part.write(chunk)
        return offset if resumed else None


@asynccontextmanager
async def _locked(place):
    """One at a time per file, as ``Place.locked``; waits without holding the others up."""
    with place.lock_file() as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_TURN_S)
        yield


async def _session():
    """The loop's client, closed by the loop's own end: that closes generators which are open."""
    loop = asyncio.get_running_loop()
    if loop not in _SESSIONS:
        holder = _hold_session()
        # nothing in there waits before the session is there, so nobody comes between
        _SESSIONS[loop] = holder, await anext(holder)
    return _SESSIONS[loop][1]


async def _hold_session():
    connections = aiohttp.TCPConnector(limit=0)  # who calls us says how many at once
    options = {"timeout": TIMEOUT, "read_bufsize": CHUNK, "auto_decompress": False}
    async with aiohttp.ClientSession(connector=connections, **options) as session:
        yield session
