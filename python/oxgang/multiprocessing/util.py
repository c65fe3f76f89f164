"""`multiprocessing.util`: the standard module's own, which knows what is to be done at a
process's end."""

from multiprocessing import util as _standard
from multiprocessing.util import (
    SUBDEBUG,
    SUBWARNING,
    Finalize,
    ForkAwareLocal,
    ForkAwareThreadLock,
    abstract_sockets_supported,
    close_all_fds_except,
    close_fds,
    debug,
    get_logger,
    get_temp_dir,
    info,
    is_abstract_socket_namespace,
    is_exiting,
    log_to_stderr,
    register_after_fork,
    spawnv_passfds,
    sub_debug,
    sub_warning,
)

__all__ = [
    "SUBDEBUG",
    "SUBWARNING",
    "Finalize",
    "ForkAwareLocal",
    "ForkAwareThreadLock",
    "abstract_sockets_supported",
    "close_all_fds_except",
    "close_fds",
    "debug",
    "get_logger",
    "get_temp_dir",
    "info",
    "is_abstract_socket_namespace",
    "is_exiting",
    "log_to_stderr",
    "register_after_fork",
    "spawnv_passfds",
    "sub_debug",
    "sub_warning",
]


def __getattr__(name):
    # what the standard module keeps for itself; looked up each time, since it may change
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_standard, name)
