"""What every Python process loads that the tests start, before any of their code runs: imports by
tests lead to the replacement, those of libraries to the standard library.

It is copied into a throw-away environment; it must stay cheap, and import nothing but sys and
builtins at the top.
"""

import builtins
import sys

_Module = type(sys)
_MISSING = object()

# Children that a library starts with "-c": these lines are library code, not a
# program of the tests, so they get what they would get without the harness.
_SPAWN_BOOT = {
    ("multiprocessing.spawn", "spawn_main"),
    ("multiprocessing.forkserver", "main"),
    ("multiprocessing.resource_tracker", "main"),
    ("multiprocessing.semaphore_tracker", "main"),
}

_USER_TOPS = ("__main__", "__mp_main__", "test", "pkgutil")
_USER_MODULES = ("unittest.mock", "unittest.async_case", "doctest")


def _caller():
    """The globals of whoever called our caller."""
    try:
        return sys._getframe(2).f_globals
    except ValueError:  # the interpreter itself, at exit
        return {"__name__": "builtins"}


class Overlay(_Module):
    """A stdlib submodule for which the replacement has no counterpart.

    It is the stdlib's module, except that a public name which the stdlib's
    package shares with this submodule (concurrent.futures.Future is
    concurrent.futures._base.Future) is taken from the replacement.
    Assignments go through to the stdlib's module."""

    def __init__(self, hook, name, root, real):
        super().__init__(name, real.__doc__)
        d = self.__dict__
        for key in ("__file__", "__path__", "__all__", "__package__", "__spec__", "__loader__"):
            if key in real.__dict__:
                d[key] = real.__dict__[key]
        d["_conformance_overlay"] = (hook, name, root, real)

    def __getattr__(self, attr):
        hook, name, root, real = self.__dict__["_conformance_overlay"]
        value = getattr(real, attr)
        if isinstance(value, _Module) and value.__name__ == name + "." + attr:
            return hook.alias(value.__name__)
        shared = hook.shared(root, attr, value)
        if shared is not _MISSING:
            return shared
        if attr[0] == "_":
            hook.note_loan(name, attr)
        return value

    def __setattr__(self, attr, value):
        if attr[:2] == "__":
            super().__setattr__(attr, value)
        else:
            setattr(self.__dict__["_conformance_overlay"][3], attr, value)

    def __delattr__(self, attr):
        delattr(self.__dict__["_conformance_overlay"][3], attr)

    def __dir__(self):
        return dir(self.__dict__["_conformance_overlay"][3])


class Parent(_Module):
    """The package above a replaced dotted name: `concurrent` for
    concurrent.futures.  Everything but the replaced child is the stdlib's."""

    def __init__(self, hook, name, real):
        super().__init__(name, real.__doc__)
        d = self.__dict__
        for key in ("__file__", "__path__", "__package__", "__spec__", "__loader__"):
            if key in real.__dict__:
                d[key] = real.__dict__[key]
        d["_conformance_parent"] = (hook, name, real)

    def __getattr__(self, attr):
        hook, name, real = self.__dict__["_conformance_parent"]
        full = name + "." + attr
        if full in hook.aliases:
            return hook.aliases[full]
        value = getattr(real, attr)
        if hook.governed(full):
            return hook.alias(full)
        return value


class _PatchLoader:
    """Runs the module's own loader, then adapts its scaffolding."""

    def __init__(self, loader, hook):
        self._loader = loader
        self._hook = hook

    def __getattr__(self, attr):
        return getattr(self._loader, attr)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        code = self._hook.adapted_code(module, self._loader)
        if code is None:
            self._loader.exec_module(module)
        else:
            exec(code, module.__dict__)
        self._hook.adapt(module)


class _PatchFinder:
    def __init__(self, hook):
        self.hook = hook
        self.busy = set()

    def find_spec(self, name, path=None, target=None):
        if name not in self.hook.adapted_modules or name in self.busy:
            return None
        self.busy.add(name)
        try:
            spec = self.hook.find_spec(name, path)
        finally:
            self.busy.discard(name)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _PatchLoader(spec.loader, self.hook)
        return spec


class _ExtraFinder:
    """Last on sys.meta_path: finds the replacement (and what it needs) in the
    launching interpreter's directories, also under -I, without touching sys.path."""

    def __init__(self, paths):
        self.paths = paths

    def find_spec(self, name, path=None, target=None):
        if path is not None:
            return None
        from _frozen_importlib_external import PathFinder

        return PathFinder.find_spec(name, self.paths)


class Hook:
    def __init__(self, cfg):
        self.cfg = cfg
        self.roots = dict(cfg["replace"])
        self.mirror = cfg["mode"] == "sysmodules"
        self.strict = cfg["strict"]
        self.tops = frozenset(r.partition(".")[0] for r in self.roots)
        self.repl_tops = frozenset(r.partition(".")[0] for r in self.roots.values())
        self.stdlib_tops = frozenset(cfg["stdlib_tops"])
        self.lib_dirs = tuple(cfg["lib_dirs"])
        self.aliases = {}
        self.real = {}  # mirror mode: the stdlib's module behind an alias in sys.modules
        self.loans = {}
        self.public = {}  # per root: id of a public object of the stdlib -> its name
        self.adaptations = []
        self.reported = set()
        self.orig_import = builtins.__import__
        self.orig_import_module = None
        self.adapted_modules = (
            {
                "test.support",
                "test.test_concurrent_futures",
                "test.test_concurrent_futures.util",
                "test._test_multiprocessing",
                "test.test_threading_local",
                "test.test_asyncio.utils",
            }
            if cfg["adapt"]
            else set()
        )

    # -- installation ------------------------------------------------------

    def install(self):
        import _frozen_importlib
        import importlib

        self.find_spec = _frozen_importlib._find_spec
        self.calc_package = _frozen_importlib._calc___package__
        self.resolve_name = _frozen_importlib._resolve_name
        self.orig_import_module = importlib.import_module
        hook = self
        orig_import = self.orig_import
        tops = self.tops
        mirror = self.mirror
        caller = _caller

        def __import__(name, globals=None, locals=None, fromlist=(), level=0):
            if level == 0:
                if type(name) is str and name.partition(".")[0] in tops:
                    g = caller() if globals is None else globals
                    if hook.is_user(g) and not hook.is_spawn_boot(g, name, fromlist):
                        return hook.user_import(name, fromlist)
                    if mirror:
                        return hook.lib_import(name, fromlist, True)
            elif mirror and globals is not None:
                full = hook.resolve_name(name, hook.calc_package(globals), level)
                if full.partition(".")[0] in tops:
                    return hook.lib_import(full, fromlist, False)
            return orig_import(name, globals, locals, fromlist, level)

        def import_module(name, package=None):
            if type(name) is str and name.partition(".")[0] in tops:
                if hook.is_user(caller()):
                    if hook.governed(name) or hook.is_parent(name):
                        return hook.alias(name)
                elif mirror:
                    return hook.real_module(name)
            return hook.orig_import_module(name, package)

        builtins.__import__ = __import__
        importlib.import_module = import_module
        if self.adapted_modules:
            sys.meta_path.insert(0, _PatchFinder(self))
        sys.meta_path.append(_ExtraFinder(list(self.cfg["extra_path"])))
        self.report("start", "")

    def report(self, what, detail):
        """One line per event and process, for the proof that children were redirected."""
        path = self.cfg["child_log"]
        import os

        pid = os.getpid()
        if not path or (pid, what, detail) in self.reported:
            return
        self.reported.add((pid, what, detail))
        try:
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0))
            try:
                os.write(fd, ("%d %s %s\n" % (pid, what, detail)).encode())
            finally:
                os.close(fd)
        except OSError:
            pass

    # -- who is importing --------------------------------------------------

    def is_user(self, g):
        """True for the tests and the programs they run, False for libraries:
        the stdlib (but for its `test` package), installed packages, and the
        replacement itself all get the stdlib's modules."""
        name = g.get("__name__")
        if not isinstance(name, str):
            return True
        top = name.partition(".")[0]
        if top in _USER_TOPS or name in _USER_MODULES:
            return True
        if top in self.repl_tops or top in self.stdlib_tops or top.startswith("_conformance"):
            return False
        file = g.get("__file__")
        return not (isinstance(file, str) and file.startswith(self.lib_dirs))

    def is_spawn_boot(self, g, name, fromlist):
        return (
            bool(fromlist)
            and (name, fromlist[0]) in _SPAWN_BOOT
            and g.get("__name__") == "__main__"
            and "__file__" not in g
        )

    def root_of(self, name):
        for root in self.roots:
            if name == root or name.startswith(root + "."):
                return root
        return None

    def governed(self, name):
        return self.root_of(name) is not None

    def is_parent(self, name):
        return any(root.startswith(name + ".") for root in self.roots)

    # -- imports of the tests ----------------------------------------------

    def user_import(self, name, fromlist):
        if self.governed(name) or self.is_parent(name):
            mod = self.alias(name)
        else:  # a sibling under a shared parent: concurrent.something
            mod = self.orig_import_module(name)
        if not fromlist:
            return self.alias(name.partition(".")[0])
        for item in fromlist:
            names = [item]
            if item == "*":
                names = [n for n in getattr(mod, "__all__", ()) if isinstance(n, str)]
            for n in names:
                full = name + "." + n
                if self.governed(full) and not hasattr(mod, n) and hasattr(mod, "__path__"):
                    try:
                        self.alias(full)
                    except ModuleNotFoundError as exc:
                        if exc.name != full:
                            raise
        return mod

    def alias(self, name):
        mod = self.aliases.get(name)
        if mod is None:
            mod = self.make_alias(name)
            mod = self.aliases.setdefault(name, mod)
        return mod

    def make_alias(self, name):
        root = self.root_of(name)
        if root is None:
            return Parent(self, name, self.real_module(name))
        if name == root:
            real = self.real_module(name)
            repl = self.orig_import_module(self.roots[root])
            self.report("used", "%s=%s" % (name, repl.__name__))
        else:
            self.alias(name.rpartition(".")[0])
            repl = self.replacement_sub(root, name)
            try:
                real = self.real_module(name)
            except ImportError:
                if repl is None:
                    raise
                real = None
        if repl is None:
            return Overlay(self, name, root, real)
        self.lend_to(repl, name)
        if self.mirror:
            if real is not None:
                self.real[name] = real
            sys.modules[name] = repl
        return repl

    def replacement_sub(self, root, name):
        full = self.roots[root] + name[len(root) :]
        if full in sys.modules:
            return sys.modules[full]
        parent = sys.modules.get(full.rpartition(".")[0])
        path = getattr(parent, "__path__", None)
        if path is not None and self.find_spec(full, path) is not None:
            return self.orig_import_module(full)
        value = getattr(parent, "__dict__", {}).get(name.rpartition(".")[2])
        if (
            isinstance(value, _Module)
            and not isinstance(value, Overlay)
            and value.__name__.partition(".")[0] in self.repl_tops
        ):
            return value
        return None

    # -- imports of libraries (only differs from plain in mirror mode) -------

    def real_module(self, name):
        """The stdlib's own module."""
        if name in self.real:
            return self.real[name]
        if name in sys.modules and name not in self.aliases:
            return sys.modules[name]
        if not self.real:
            return self.orig_import_module(name)
        saved = {n: sys.modules.get(n) for n in self.real}
        sys.modules.update(self.real)
        try:
            return self.orig_import_module(name)
        finally:
            for n, m in saved.items():
                if m is not None:
                    sys.modules[n] = m

    def lib_import(self, name, fromlist, absolute):
        mod = self.real_module(name)
        if not fromlist:
            return self.real_module(name.partition(".")[0]) if absolute else mod
        if hasattr(mod, "__path__"):
            for item in fromlist:
                full = name + "." + item
                if item != "*" and self.governed(full) and not hasattr(mod, item):
                    try:
                        self.real_module(full)
                    except ModuleNotFoundError as exc:
                        if exc.name != full:
                            raise
        return mod

    # -- names the replacement need not have ---------------------------------

    def shared(self, root, attr, value):
        """A public name of the stdlib's package that is this same object: the
        replacement's object of that name."""
        real_root = self.real_module(root)
        if attr[0] != "_":
            if (
                attr in getattr(real_root, "__all__", ())
                and getattr(real_root, attr, _MISSING) is value
            ):
                return getattr(self.alias(root), attr, _MISSING)
        elif callable(value):
            # a private name of a public object: asyncio.tasks._CTask is asyncio.Task
            public = self.public.get(root)
            if public is None:
                public = self.public[root] = {}
                d = real_root.__dict__
                for n in getattr(real_root, "__all__", ()):
                    if n[0] != "_" and callable(d.get(n)):
                        public.setdefault(id(d[n]), n)
            if id(value) in public:
                return getattr(self.alias(root), public[id(value)], _MISSING)
        return _MISSING

    def note_loan(self, name, attr):
        key = name + "." + attr
        self.loans[key] = self.loans.get(key, 0) + 1

    def lend_to(self, mod, name):
        """Give the replacement module a __getattr__ for the names it lacks.

        Only underscored names and submodules are lent, only to code outside of
        the replacement, and every loan is counted: test files touch them while
        they are being imported and in setUp, long before a test runs."""
        d = mod.__dict__
        old = d.get("__getattr__")
        if getattr(old, "_conformance", False):
            return
        if old is None and hasattr(type(mod), "__getattr__"):

            def old(attr):
                return type(mod).__getattr__(mod, attr)

        hook = self

        def __getattr__(attr):
            if old is not None:
                try:
                    return old(attr)
                except AttributeError:
                    pass
            requester = _caller().get("__name__")
            requester = requester.partition(".")[0] if isinstance(requester, str) else ""
            if attr[:2] != "__" and requester not in hook.repl_tops:
                value = hook.lend(name, attr)
                if value is not _MISSING:
                    return value
            raise AttributeError("module %r has no attribute %r" % (mod.__name__, attr))

        __getattr__._conformance = True
        d["__getattr__"] = __getattr__

    def lend(self, name, attr):
        full = name + "." + attr
        try:
            real = self.real_module(name)
        except ImportError:
            return _MISSING
        if hasattr(real, "__path__") and (
            full in sys.modules or self.find_spec(full, real.__path__) is not None
        ):
            return self.alias(full)
        if attr[0] != "_":
            value = getattr(real, attr, _MISSING)
            return (
                self.shared(self.root_of(name), attr, value) if name not in self.roots else _MISSING
            )
        if self.strict:
            return _MISSING
        if full == "threading._CRLock" and self.cfg["adapt"]:
            # CPython's RLock is this class; its tests reach it by this name.
            self.adapted("threading._CRLock, where missing, is the replacement's RLock")
            return getattr(self.alias("threading"), "RLock", _MISSING)
        value = getattr(real, attr, _MISSING)
        if value is not _MISSING:
            shared = self.shared(self.root_of(name), attr, value)
            if shared is not _MISSING:
                return shared
            self.note_loan(name, attr)
        return value

    # -- scaffolding of the test files ---------------------------------------

    def adapted(self, text):
        if text not in self.adaptations:
            self.adaptations.append(text)

    def adapted_code(self, module, loader):
        """The futures tests call create_future() while they are being imported:
        the module's own code, with that name rebound right after its def."""
        if (
            not module.__name__.startswith("test.test_concurrent_futures")
            or "concurrent.futures" not in self.roots
        ):
            return None
        try:
            source = loader.get_source(module.__name__)
        except (AttributeError, ImportError):
            return None
        if not source or "def create_future(" not in source:
            return None
        import ast

        tree = ast.parse(source)
        for i, node in enumerate(tree.body):
            if isinstance(node, ast.FunctionDef) and node.name == "create_future":
                bind = ast.parse("create_future = __conformance_create_future__").body[0]
                for n in ast.walk(bind):
                    ast.copy_location(n, node)
                tree.body.insert(i + 1, bind)
                module.__conformance_create_future__ = self.create_future
                return compile(
                    tree, module.__spec__.origin or module.__name__, "exec", dont_inherit=True
                )
        return None

    def create_future(self, state="PENDING", exception=None, result=None):
        f = self.alias("concurrent.futures").Future()
        if state == "RUNNING":
            f.set_running_or_notify_cancel()
        elif state == "CANCELLED":
            f.cancel()
        elif state == "CANCELLED_AND_NOTIFIED":
            f.cancel()
            f.set_running_or_notify_cancel()
        elif state == "FINISHED" and exception is not None:
            f.set_exception(exception)
        elif state == "FINISHED":
            f.set_result(result)
        return f

    def adapt(self, module):
        name = module.__name__
        if name == "test.support":
            self.adapt_support(module)
        elif name == "test._test_multiprocessing" and "multiprocessing" in self.roots:
            self.adapt_multiprocessing(module)
        elif name == "test.test_threading_local" and "threading" in self.roots:
            module.ThreadLocalTest._local = self.alias("threading").local
            self.adapted(
                "ThreadLocalTest tests the replacement's threading.local, not _thread._local"
            )
        elif "__conformance_create_future__" in module.__dict__:
            self.adapt_futures(module)
        elif name == "test.test_asyncio.utils" and "asyncio" in self.roots:
            self.adapt_asyncio(module)

    def adapt_support(self, support):
        orig = getattr(support, "check__all__", None)
        if orig is None:
            return
        hook = self

        def check__all__(test_case, module, name_of_module=None, extra=(), *args, **kwargs):
            for root, repl_name in hook.roots.items():
                repl = hook.aliases.get(root)
                if repl is not module:
                    continue
                if name_of_module is None:
                    names = (root,)
                elif isinstance(name_of_module, str):
                    names = (name_of_module,)
                else:
                    names = tuple(name_of_module)
                name_of_module = names + (module.__name__,)
                # classes that live in another module of the replacement, such as its core
                extra = set(extra)
                for n in getattr(module, "__all__", ()):
                    where = getattr(getattr(module, n, None), "__module__", None)
                    if isinstance(where, str) and where.partition(".")[0] in hook.repl_tops:
                        extra.add(n)
            return orig(test_case, module, name_of_module, extra, *args, **kwargs)

        support.check__all__ = check__all__
        self.adapted("test.support.check__all__ also takes names defined in the replacement")

    def adapt_futures(self, module):
        self.adapted(
            "create_future() and the ready-made futures are built with Future's public methods"
        )
        Future = self.alias("concurrent.futures").Future
        if not hasattr(Future, "_state") and not hasattr(Future(), "_state"):

            def _state(self):
                if self.cancelled():
                    return "CANCELLED"
                if self.done():
                    return "FINISHED"
                return "RUNNING" if self.running() else "PENDING"

            try:
                Future._state = property(_state)
                self.adapted(
                    "Future._state, where missing, is derived from the public methods "
                    "(test_cancel_futures shows it in a message)"
                )
            except (TypeError, AttributeError):
                self.adapted("Future._state is missing and the class takes no new attribute")

    def adapt_multiprocessing(self, module):
        multiprocessing = self.alias("multiprocessing")
        condition = getattr(module, "_TestCondition", None)
        if condition is not None and hasattr(condition, "check_invariant"):
            orig = condition.check_invariant

            def check_invariant(self, cond):
                if hasattr(cond, "_sleeping_count"):
                    orig(self, cond)

            condition.check_invariant = check_invariant
            self.adapted(
                "_TestCondition.check_invariant() is left out where the private "
                "counters it reads do not exist"
            )

        class _DummyList(object):
            def __init__(self):
                self.length = multiprocessing.Value("i", 0)

            def append(self, _):
                with self.length.get_lock():
                    self.length.value += 1

            def __len__(self):
                with self.length.get_lock():
                    return self.length.value

        if hasattr(module, "_DummyList"):
            _DummyList.__module__ = module.__name__
            _DummyList.__qualname__ = "_DummyList"
            module._DummyList = _DummyList
            self.adapted(
                "the Barrier tests' counter is a multiprocessing.Value, not a "
                "multiprocessing.heap block"
            )

    def adapt_asyncio(self, module):
        async def nothing():
            pass

        def run_briefly(loop):
            loop.run_until_complete(nothing())

        module.run_briefly = run_briefly
        self.adapted("test_asyncio's run_briefly() does without Task._log_destroy_pending")
        orig = module.TestCase.close_loop

        def close_loop(loop):
            if hasattr(loop, "_default_executor"):
                return orig(loop)
            if not loop.is_closed():
                loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

        module.TestCase.close_loop = staticmethod(close_loop)
        self.adapted(
            "test_asyncio's close_loop() does without BaseEventLoop._default_executor, if missing"
        )


HOOK = None


def install(cfg):
    global HOOK
    if HOOK is None and cfg["replace"]:
        HOOK = Hook(cfg)
        HOOK.install()
    return HOOK
