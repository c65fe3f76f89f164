"""The worker: one process that runs (part of) one suite and writes one JSON line per event.

It is copied into a throw-away environment, and runs inside it; see README.md.
"""

import json
import os
import signal
import subprocess
import sys
import time

_MISSING = object()
HOOK_MODULE = "_conformance_hook"
BOOT_MODULE = "_conformance_boot"
MAIN_MODULE = "_conformance"
OFF = "CONFORMANCE_HOOK_OFF"
CLASSES = ("public", "internal", "platform")
RESOURCES = ("cpu", "walltime", "subprocess", "decimal", "tzdata")
DEFAULT_SUITES = [
    "test_queue",
    "test_threading",
    "test_threading_local",
    "test_concurrent_futures",
    "test_multiprocessing_main_handling",
    "test_multiprocessing_fork",
    "test_multiprocessing_forkserver",
    "test_multiprocessing_spawn",
]


def test_ids(tests):
    """Each test with its id; a second test of the same id gets "#2"."""
    seen = {}
    out = []
    for test in tests:
        ident = test.id()
        seen[ident] = seen.get(ident, 0) + 1
        out.append((ident if seen[ident] == 1 else "%s#%d" % (ident, seen[ident]), test))
    return out


def flatten(suite):
    for item in suite:
        if hasattr(item, "__iter__"):
            yield from flatten(item)
        else:
            yield item


def load_suite(name):
    import unittest

    loader = unittest.TestLoader()
    try:
        suite = loader.loadTestsFromName("test." + name)
    except unittest.SkipTest as exc:
        return [], ["skipped as a whole: %s" % exc]
    return test_ids(flatten(suite)), list(loader.errors)


def worker_main():
    with open(sys.argv[1]) as f:
        cfg = json.load(f)
    hook = sys.modules[HOOK_MODULE].HOOK if HOOK_MODULE in sys.modules else None
    os.chdir(cfg["cwd"])
    me = os.getpid()
    # a background job is started with these ignored, and would pass that on
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for sig in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(sig, signal.SIG_DFL)
    fd = os.open(
        cfg["events"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
    )

    def emit(kind, **fields):
        if os.getpid() == me:
            fields["kind"] = kind
            fields["t"] = round(time.time(), 3)
            os.write(fd, (json.dumps(fields) + "\n").encode())

    import faulthandler

    faulthandler.enable()
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR2, all_threads=True, chain=False)

    if hook is not None:
        for root in hook.roots:
            try:
                hook.alias(root)
            except BaseException as exc:
                emit(
                    "proof",
                    error="cannot import %s: %s: %s" % (hook.roots[root], type(exc).__name__, exc),
                )
                return
        if "asyncio" in hook.roots and "unittest.async_case" in sys.modules:
            sys.modules["unittest.async_case"].asyncio = hook.alias("asyncio")

    import unittest

    from test import support

    support.use_resources = {name: None for name in cfg["resources"]}
    support.verbose = 0

    tests, errors = load_suite(cfg["suite"])
    emit(
        "loaded",
        ids=[ident for ident, _ in tests] if cfg["mode"] == "list" else len(tests),
        errors=[e[-2000:] for e in errors],
    )
    if cfg["mode"] == "list":
        return

    if hook is not None:
        proof = prove(hook)
        emit("proof", **proof)
        if proof.get("error"):
            return

    wanted = set(cfg["wanted"])
    chosen = [(i, t) for i, t in tests if i in wanted]
    names = {id(t): i for i, t in chosen}

    class Result(unittest.TestResult):
        def __init__(self):
            super().__init__()
            self.current = None

        def startTest(self, test):
            super().startTest(test)
            self.current = names.get(id(test), test.id())
            self.outcome, self.message, self.began = None, "", time.monotonic()
            emit("start", id=self.current)

        def stopTest(self, test):
            emit(
                "stop",
                id=self.current,
                outcome=self.outcome or "passed",
                message=self.message,
                seconds=round(time.monotonic() - self.began, 3),
            )
            self.current = None
            super().stopTest(test)

        def set(self, test, outcome, message):
            if not isinstance(test, unittest.TestCase):
                # a class or module fixture
                emit("fixture", where=test.id(), outcome=outcome, message=message)
            elif self.current is None:
                # a test skipped by its class, before startTest in some versions
                emit(
                    "stop",
                    id=names.get(id(test), test.id()),
                    outcome=outcome,
                    message=message,
                    seconds=0,
                )
            elif self.outcome not in ("failed", "error"):
                self.outcome, self.message = outcome, message

        def text(self, err, test):
            lines = self._exc_info_to_string(err, test).strip().splitlines()
            return "\n".join(lines)[-4000:]

        def addFailure(self, test, err):
            self.set(test, "failed", self.text(err, test))

        def addError(self, test, err):
            self.set(test, "error", self.text(err, test))

        def addSkip(self, test, reason):
            self.set(test, "skipped", reason)

        def addSubTest(self, test, subtest, err):
            if err is not None:
                failed = issubclass(err[0], test.failureException)
                self.set(
                    test,
                    "failed" if failed else "error",
                    "%s\n%s" % (subtest._subDescription(), self.text(err, test)),
                )

        def addExpectedFailure(self, test, err):
            self.set(test, "xfailed", "")

        def addUnexpectedSuccess(self, test):
            self.set(test, "failed", "unexpected success")

        def addDuration(self, test, elapsed):
            pass

    result = Result()
    suite = unittest.TestSuite([t for _, t in chosen])
    del tests, chosen
    suite.run(result)
    info = {}
    if hook is not None:
        info = {
            "loans": hook.loans,
            "adaptations": hook.adaptations,
            "stdlib_submodules": sorted(
                n for n, m in hook.aliases.items() if isinstance(m, Overlay_of(hook))
            ),
            "leaks": leaks(hook),
        }
    emit("done", **info)


def Overlay_of(hook):
    """The Overlay class of the hook's own copy of this code."""
    return sys.modules[type(hook).__module__].Overlay


def under(path, directory):
    path, directory = os.path.realpath(path), os.path.realpath(directory)
    return path == directory or path.startswith(directory.rstrip(os.sep) + os.sep)


def stdlib_dirs():
    import sysconfig

    paths = sysconfig.get_paths()
    return sorted({paths["stdlib"], paths["platstdlib"]})


def is_stdlib_file(path):
    if not path:
        return False
    return (
        any(under(path, d) for d in stdlib_dirs())
        and "site-packages" not in path
        and "dist-packages" not in path
    )


def same_object(a, b):
    if a is b:
        return True
    fa, fb = getattr(a, "__func__", None), getattr(b, "__func__", None)
    return fa is not None and fa is fb and getattr(a, "__self__", 0) is getattr(b, "__self__", 1)


def prove(hook):
    """What the tests' imports give, and whether it is the replacement."""
    out = {"modules": {}}
    for root, repl_name in sorted(hook.roots.items()):
        scope = {"__name__": "__main__"}
        exec("import %s as m" % root, scope)
        mod = scope["m"]
        real = hook.real_module(root)
        file = getattr(mod, "__file__", None)
        public = [n for n in getattr(real, "__all__", dir(real)) if n[0] != "_"]
        own, shared, missing = [], [], []
        for n in public:
            value = getattr(mod, n, _MISSING)
            if value is _MISSING:
                missing.append(n)
            elif same_object(value, getattr(real, n, _MISSING)):
                shared.append(n)
            else:
                own.append(n)
        out["modules"][root] = {
            "name": mod.__name__,
            "own": own,
            "stdlib_objects": shared,
            "missing": missing,
        }
        if mod is real:
            out["error"] = "%s is still the stdlib's module" % root
        elif is_stdlib_file(file):
            out["error"] = "%s comes from the stdlib's own file" % root
        elif mod is not sys.modules.get(repl_name):
            out["error"] = "%s gives %r, which is not the module %s" % (
                root,
                mod.__name__,
                repl_name,
            )
        elif hook.mirror and sys.modules.get(root) is not mod:
            out["error"] = "sys.modules[%r] is not the replacement" % root
        else:
            # the same in a fresh interpreter, in isolated mode
            code = "import %s as m; print(m.__name__)" % root
            try:
                p = subprocess.run(
                    [sys.executable, "-I", "-c", code],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=120,
                )
                said = p.stdout.decode(errors="replace").strip()
            except subprocess.TimeoutExpired:
                said = "(no answer in 120 s)"
            out["modules"][root]["child_name"] = said
            if said != mod.__name__:
                out["error"] = "in a child process, %s is %r" % (root, said[-300:])
    found = leaks(hook)
    if found and not out.get("error"):
        out["error"] = "test modules hold the stdlib's module: %s" % ", ".join(found[:10])
    return out


def leaks(hook):
    """Globals of the test package that are the stdlib's module although there is
    a replacement for it."""
    reals = {}
    overlay = Overlay_of(hook)
    for name, mod in hook.aliases.items():
        if not isinstance(mod, overlay) and hook.governed(name):
            try:
                reals[id(hook.real_module(name))] = name
            except ImportError:
                pass
    found = []
    for modname, mod in sorted(sys.modules.items()):
        if modname == "test" or modname.startswith("test."):
            for attr, value in list(getattr(mod, "__dict__", {}).items()):
                if isinstance(value, type(sys)) and id(value) in reals:
                    found.append("%s.%s" % (modname, attr))
    return found
