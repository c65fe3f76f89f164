"""CPython's own suites against oxgang: one for each that the interpreter came with."""

from tools.shell import ROOT, capture

SCRIPT = ROOT / "tests" / "conformance" / "conformance.py"
DIFFERS = SCRIPT.parent / "differs.txt"
GROUPS = {  # what is replaced together: the suites for it
    ("concurrent.futures", "multiprocessing"): (
        "test_concurrent_futures",
        "test_multiprocessing_main_handling",
        "test_multiprocessing_fork",
        "test_multiprocessing_forkserver",
        "test_multiprocessing_spawn",
    ),
    ("threading", "queue"): ("test_threading", "test_threading_local", "test_queue"),
    ("asyncio",): ("test_asyncio",),
}


def suites(steps, environment, fast):
    """A job for each; what cannot run is skipped with a sentence."""
    for replaced, names in GROUPS.items():
        for suite in names:
            name = f"{suite} on {environment.tag}"
            if fast:
                steps.skip(name, "--fast")
            elif not _has_module(environment, f"test.{suite}"):
                steps.skip(name, f"this Python came without test.{suite}")
            else:
                yield name, _command(environment, suite, replaced), environment.env


def _command(environment, suite, replaced):
    command = [environment.python, SCRIPT, "--suite", suite]
    for module in replaced:
        command += ["--replace", f"{module}=oxgang.{module}"]
    return [*command, "--class", "public", "--retry", "1", "--differs", DIFFERS]


def _has_module(environment, name):
    question = f"import importlib.util as u; print(u.find_spec({name!r}) is not None)"
    return (capture([environment.python, "-c", question], environment.env) or "").strip() == "True"
