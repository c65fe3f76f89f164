"""Imported by a program's main module, and so by its template process, which cannot fork then."""

import errno
import sys

import sandbox

if "oxgang-template" in sys.argv:
    sandbox.forbid("fork", errno.EAGAIN)
