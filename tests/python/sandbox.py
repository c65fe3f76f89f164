"""Forbids system calls to this process and its children, as a container (by seccomp) would."""

import ctypes
import errno
import os
import struct

_NUMBERS = {
    "x86_64": {
        "memfd_create": (319,),
        "pidfd_open": (434,),
        "fork": (56, 57, 58, 435),  # clone, fork, vfork, clone3
    },
    "aarch64": {"memfd_create": (279,), "pidfd_open": (434,), "fork": (220, 435)},
}
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER = 22, 38, 2
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000

known = os.uname().machine in _NUMBERS


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def forbid(name, error=errno.EPERM):
    """From now on the call `name` fails with this error."""
    code = [(_LOAD, 0, 0, 0)]  # the call's number
    for number in _NUMBERS[os.uname().machine][name]:
        code += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | error)]
    code.append((_RETURN, 0, 0, _ALLOW))
    packed = b"".join(struct.pack("HBBI", *instruction) for instruction in code)
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(code), packed)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "no system-call filter can be set here")
