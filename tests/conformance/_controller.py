"""The controller's tools: the throw-away environment, and the run of one suite in it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from _conformance import (
    BOOT_MODULE,
    CLASSES,
    HOOK_MODULE,
    MAIN_MODULE,
    OFF,
    RESOURCES,
    is_stdlib_file,
    stdlib_dirs,
)


def die(text):
    print("conformance: " + text, file=sys.stderr)
    sys.exit(2)


def become_subreaper():
    """Orphans of the tests become our children, so that they can be found and ended."""
    try:
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)
    except Exception:
        pass


def my_children():
    """(pid, state, command) of our direct children, from /proc."""
    me = os.getpid()
    out = []
    try:
        pids = [int(p) for p in os.listdir("/proc") if p.isdigit()]
    except OSError:
        return out
    for pid in pids:
        try:
            with open("/proc/%d/stat" % pid) as f:
                stat = f.read()
            comm, rest = (
                stat[stat.index("(") + 1 : stat.rindex(")")],
                stat[stat.rindex(")") + 2 :].split(),
            )
            if int(rest[1]) == me:
                with open("/proc/%d/cmdline" % pid, "rb") as f:
                    cmd = f.read().replace(b"\0", b" ").decode(errors="replace").strip()
                out.append(
                    (
                        pid,
                        rest[0],
                        os.path.basename(cmd.split(" ")[0]) + cmd[len(cmd.split(" ")[0]) :]
                        if cmd
                        else comm,
                    )
                )
        except (OSError, ValueError):
            pass
    return out


def reap_strays(grace):
    """End what the tests left running; returns what had to be killed."""
    deadline = time.monotonic() + grace
    killed = {}
    while True:
        alive = []
        for pid, state, cmd in my_children():
            if state == "Z":
                try:
                    os.waitpid(pid, os.WNOHANG)
                except OSError:
                    pass
            else:
                alive.append((pid, cmd))
        if not alive:
            return list(killed.values())
        if time.monotonic() >= deadline:
            for pid, cmd in alive:
                killed.setdefault(pid, cmd[:200])
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            if time.monotonic() > deadline + 10:
                return list(killed.values())
        time.sleep(0.05)


def read_ids(path):
    ids = {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            line = line.rstrip("\n")
            if line and not line.startswith("#"):
                ident, _, why = line.partition("\t")
                ids[ident.strip()] = why.strip()
    return ids


def class_lists(directory):
    """(the lists of this version, class by id).  An id this version's lists do not
    have is looked up in those of the nearest other versions: the lists of some
    were made from an interpreter without all suites."""
    minor = sys.version_info[1]
    versions = {}
    for name in sorted(os.listdir(directory)):
        m = re.match(r"(%s)-3\.(\d+)\.txt$" % "|".join(CLASSES), name)
        if m:
            versions.setdefault(int(m.group(2)), {})[m.group(1)] = read_ids(
                os.path.join(directory, name)
            )
    listed = {}
    for v in sorted(versions, key=lambda v: (abs(v - minor), v)):
        for cls in CLASSES:
            for ident in versions[v].get(cls, ()):
                listed.setdefault(ident, cls)
    own = versions.get(minor, {})
    return {cls: own.get(cls, {}) for cls in CLASSES}, listed


def belongs(ident, suite):
    return ident == "test." + suite or ident.startswith("test." + suite + ".")


def search_path(replace):
    """Where the replacement is found: the directories this interpreter looks in,
    less the stdlib's and the harness's own."""
    import importlib.util

    here = os.path.dirname(os.path.abspath(__file__))
    extra = []
    for repl in replace.values():
        top = repl.partition(".")[0]
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            spec = None
        if spec is None:
            die("no module named %r here (PYTHONPATH?)" % top)
        places = list(spec.submodule_search_locations or [])
        extra += [os.path.dirname(os.path.abspath(p)) for p in places]
        if spec.origin and not places:
            extra.append(os.path.dirname(os.path.abspath(spec.origin)))
    extra += [
        os.path.abspath(p)
        for p in sys.path
        if p
        and os.path.isdir(p)
        and not is_stdlib_file(os.path.join(p, "x"))
        and os.path.abspath(p) != here
    ]
    return list(dict.fromkeys(extra))


class Environment:
    """A throw-away virtual environment of this interpreter whose start-up file
    loads the hook.  It works for -I, -E and an empty environment alike; only -S
    (no site module) gets past it."""

    def __init__(self, replace, mode, adapt, strict):
        import venv

        extra = search_path(replace)
        self.dir = tempfile.mkdtemp(prefix="conf-")
        env = os.path.join(self.dir, "env")
        venv.EnvBuilder(with_pip=False, symlinks=True).create(env)
        self.python = os.path.join(env, "bin", "python")
        import sysconfig

        scheme = "venv" if "venv" in sysconfig.get_scheme_names() else "posix_prefix"
        self.site = sysconfig.get_path("purelib", scheme, {"base": env, "platbase": env})
        self.child_log = os.path.join(self.dir, "children.log")
        # what the tests leave behind goes with us; not if the paths of sockets
        # in it would get too long
        self.tmp = os.path.join(self.dir, "t")
        os.mkdir(self.tmp)
        if len(self.tmp) > 50:
            self.tmp = None
        here = os.path.dirname(os.path.abspath(__file__))
        for name in (HOOK_MODULE, MAIN_MODULE):
            shutil.copy(os.path.join(here, name + ".py"), self.site)
        names = set(getattr(sys, "stdlib_module_names", ()))
        if not names:
            for d in stdlib_dirs() + [os.path.join(d, "lib-dynload") for d in stdlib_dirs()]:
                if os.path.isdir(d):
                    names.update(n.partition(".")[0] for n in os.listdir(d))
        names.update(sys.builtin_module_names)
        names.update(("_frozen_importlib", "_frozen_importlib_external", "importlib", "zipimport"))
        names -= {"test", "__main__", "__mp_main__", "site-packages", "__pycache__"}
        lib_dirs = [os.path.join(d, "") for d in stdlib_dirs() + [self.site]]
        lib_dirs += [
            os.path.join(p, "") for p in extra if "site-packages" in p or "dist-packages" in p
        ]
        self.cfg = {
            "replace": replace,
            "mode": mode,
            "adapt": adapt,
            "strict": strict,
            "stdlib_tops": sorted(names),
            "lib_dirs": lib_dirs,
            "extra_path": extra,
            "child_log": self.child_log,
        }
        self.write(
            BOOT_MODULE + ".py",
            "import os\nif not os.environ.get(%r):\n"
            "    import %s\n    %s.install(%r)\n" % (OFF, HOOK_MODULE, HOOK_MODULE, self.cfg),
        )
        if replace:
            self.write("zz_conformance.pth", "import %s\n" % BOOT_MODULE)
        # compiled now: every child loads it, and may be told not to write .pyc files
        import py_compile

        for name in (HOOK_MODULE, BOOT_MODULE, MAIN_MODULE):
            py_compile.compile(os.path.join(self.site, name + ".py"), doraise=True)
        self.counter = 0

    def write(self, name, text):
        with open(os.path.join(self.site, name), "w", encoding="utf-8") as f:
            f.write(text)

    def environ(self, hook):
        env = {
            k: v
            for k, v in os.environ.items()
            if k not in ("VIRTUAL_ENV", OFF)
            and (not k.startswith("PYTHON") or k == "PYTHONDONTWRITEBYTECODE")
        }
        if not hook:
            env[OFF] = "1"
        if self.tmp:
            env["TMPDIR"] = self.tmp
        return env

    def start(self, cfg, log, hook=True):
        self.counter += 1
        base = os.path.join(self.dir, "w%d" % self.counter)
        os.mkdir(base)
        cfg = dict(cfg, cwd=os.path.join(base, "cwd"), events=os.path.join(base, "events"))
        os.mkdir(cfg["cwd"])
        path = os.path.join(base, "cfg.json")
        with open(path, "w") as f:
            json.dump(cfg, f)
        open(cfg["events"], "w").close()
        code = "import %s; %s.worker_main()" % (MAIN_MODULE, MAIN_MODULE)
        proc = subprocess.Popen(
            [self.python, "-c", code, path],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=cfg["cwd"],
            env=self.environ(hook),
            start_new_session=True,
        )
        return proc, cfg["events"]

    def children(self):
        """(interpreters started with the hook, how many of them used a replacement)"""
        started, used = set(), set()
        try:
            with open(self.child_log) as f:
                for line in f:
                    pid, what = line.split(" ")[:2]
                    (started if what == "start" else used).add(pid)
        except OSError:
            pass
        return started, used

    def close(self):
        shutil.rmtree(self.dir, ignore_errors=True)


class Tail:
    """The complete lines added to a file since the last look."""

    def __init__(self, path):
        self.path, self.pos = path, 0

    def events(self):
        with open(self.path, "rb") as f:
            f.seek(self.pos)
            data = f.read()
        cut = data.rfind(b"\n") + 1
        self.pos += cut
        return [json.loads(line) for line in data[:cut].splitlines() if line]


def end_worker(proc, strays, grace=0.0):
    try:
        os.killpg(proc.pid, signal.SIGKILL)
    except (OSError, PermissionError):
        pass
    try:
        proc.wait(30)
    except subprocess.TimeoutExpired:
        pass
    strays.extend(reap_strays(grace))


def list_ids(env, suite, log, limit):
    """The ids of the suite in this interpreter, without any replacement."""
    proc, events = env.start(
        {"mode": "list", "suite": suite, "resources": RESOURCES}, log, hook=False
    )
    try:
        proc.wait(limit)
    except subprocess.TimeoutExpired:
        pass
    end_worker(proc, [])
    for event in Tail(events).events():
        if event["kind"] == "loaded":
            ids, errors = event["ids"], event["errors"]
            if ids and all(i.startswith("unittest.loader.") for i in ids):
                ids = []  # the module itself is missing, or skips itself
            return ids, errors
    return None, ["the list of tests could not be made"]


class SuiteRun:
    def __init__(self, env, suite, wanted, opts, log, say):
        self.env, self.suite, self.opts, self.log, self.say = env, suite, opts, log, say
        self.wanted = list(wanted)
        self.results = {}
        self.fixtures, self.notes, self.strays = [], [], []
        self.proof, self.info = None, {}
        self.wall = 0.0

    def run(self):
        began = time.monotonic()
        deadline = began + self.opts.timeout
        idle = 0
        while True:
            todo = [i for i in self.wanted if i not in self.results]
            if not todo:
                break
            before = len(self.results)
            why = self.attempt(todo, deadline)
            if why == "done":
                break
            if why in ("timeout", "proof", "load"):
                break
            idle = idle + 1 if len(self.results) == before else 0
            if idle >= 2:
                self.notes.append("given up: the worker died twice without finishing a test")
                break
        self.wall = time.monotonic() - began
        return self

    def attempt(self, todo, deadline):
        """One worker, until it is done, dies, or has to be killed."""
        proc, path = self.env.start(
            {"mode": "run", "suite": self.suite, "wanted": todo, "resources": RESOURCES}, self.log
        )
        tail = Tail(path)
        current, since, why, loaded = None, time.monotonic(), None, False
        finished = False
        try:
            while why is None:
                code = proc.poll()
                for e in tail.events():
                    kind = e["kind"]
                    since = time.monotonic()
                    if kind == "start":
                        current = e["id"]
                    elif kind == "stop":
                        self.results[e["id"]] = {
                            "outcome": e["outcome"],
                            "message": e["message"],
                            "seconds": e["seconds"],
                        }
                        self.say(e["id"], self.results[e["id"]])
                        current = None
                    elif kind == "fixture":
                        if e["outcome"] == "skipped":
                            self.notes.append("%s skipped: %s" % (e["where"], e["message"]))
                        else:
                            self.fixtures.append({"where": e["where"], "message": e["message"]})
                    elif kind == "loaded":
                        loaded = True
                        self.notes.extend(
                            "while loading: " + t.strip()
                            for t in e["errors"]
                            if "while loading: " + t.strip() not in self.notes
                        )
                    elif kind == "proof":
                        self.proof = {k: v for k, v in e.items() if k not in ("kind", "t")}
                        if e.get("error"):
                            why = "proof"
                    elif kind == "done":
                        self.info = {k: v for k, v in e.items() if k not in ("kind", "t")}
                        finished = True
                now = time.monotonic()
                if why or finished:
                    break
                if code is not None:
                    why = "crash"
                elif now > deadline:
                    why = "timeout"
                elif now - since > self.opts.test_timeout:
                    why = "hang"
                else:
                    time.sleep(0.05)
            if finished:
                try:
                    proc.wait(min(60, max(1, self.opts.test_timeout)))
                    if proc.returncode:
                        self.notes.append("the worker's exit status was %d" % proc.returncode)
                except subprocess.TimeoutExpired:
                    self.notes.append("HANG AT EXIT: the process did not end after its last test")
                return "done"
            if why in ("hang", "timeout"):
                # let faulthandler write every thread's stack into the log
                try:
                    proc.send_signal(signal.SIGUSR2)
                    time.sleep(1.0)
                except OSError:
                    pass
            if why == "hang":
                if current is None:
                    self.notes.append("hang outside of any test (a fixture, or loading)")
                    self.drop_after_fixture(todo)
                else:
                    self.finish(current, "hang", "no end within %d s" % self.opts.test_timeout)
            elif why == "timeout":
                if current is not None:
                    self.finish(
                        current,
                        "hang",
                        "the suite's time limit of %d s ran out" % self.opts.timeout,
                    )
                self.notes.append("TIME LIMIT: %d s for the suite" % self.opts.timeout)
            elif why == "crash":
                status = (
                    "signal %d" % -proc.returncode
                    if proc.returncode < 0
                    else "exit status %d" % proc.returncode
                )
                if current is not None:
                    self.finish(current, "crash", "the test process died: " + status)
                elif not loaded:
                    self.notes.append("the worker died while loading: " + status)
                    return "load"
                else:
                    self.notes.append("the worker died between tests: " + status)
            return why
        finally:
            end_worker(proc, self.strays, 3.0 if finished else 0.0)

    def drop_after_fixture(self, todo):
        """A class or module fixture hangs: give up the rest of the class that comes next."""
        rest = [i for i in todo if i not in self.results]
        if rest:
            cls = rest[0].rpartition(".")[0]
            for i in rest:
                if i.rpartition(".")[0] == cls:
                    self.finish(i, "hang", "its class's or module's fixture does not end")

    def finish(self, ident, outcome, message):
        self.results[ident] = {
            "outcome": outcome,
            "message": message,
            "seconds": self.opts.test_timeout,
        }
        self.say(ident, self.results[ident])


def first_line(message):
    lines = [s for s in message.strip().splitlines() if s.strip()]
    if not lines:
        return ""
    if lines[0].startswith(("Traceback", "(", "[")):
        for s in reversed(lines):
            if not s.startswith(" ") and re.match(
                r"[\w.]+(Error|Exception|Interrupt|Exit|Empty|Full|Timeout|Warning|Group)\b", s
            ):
                return s
        return lines[-1]
    return lines[0]
