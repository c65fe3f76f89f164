"""OpenTelemetry's context, carried to tasks in other processes: for programs that use it."""

import sys


def is_loaded():
    """Whether the program uses OpenTelemetry."""
    return "opentelemetry.propagate" in sys.modules or "opentelemetry.trace" in sys.modules


def carried(fn):
    """What to submit in place of `fn`: it, or a function that runs it in the context of now."""
    from opentelemetry import propagate

    carrier = {}
    propagate.inject(carrier)
    return (run_within, carrier, fn) if carrier else (fn,)


def run_within(carrier, fn, /, *args, **kwargs):
    """Runs `fn` in the context that was carried here."""
    from opentelemetry import context, propagate

    token = context.attach(propagate.extract(carrier))
    try:
        return fn(*args, **kwargs)
    finally:
        context.detach(token)
