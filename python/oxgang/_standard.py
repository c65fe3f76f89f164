"""The standard modules, under whatever name the program has them now.

`oxgang.install` puts this package's modules in the place of the standard ones: in ``sys.modules``
and as attributes of their parents, for everybody who imports them by name. Two sorts of code must
go on seeing the standard ones: this package, which is built on them, and they themselves, whose
parts import each other by name, some of them late.

So an installed program has each of the four families twice:

* ``sys.modules["queue"]`` is ours, put there when it is first asked for (`Finder`);
* ``sys.modules["oxgang._standard.queue"]`` is the standard module. It does not know of that name:
  its ``__name__`` and ``__spec__`` are what they ever were. Being an entry like any other, it is
  loaded once, under the import system's own locks, and parents come before their parts.

Which of the two an ``import`` means is a question of who says it. `oxgang._core.Importer`, which
takes the place of ``builtins.__import__``, looks at the importer's ``__name__``: to this package
and to the standard modules of the four families it hands the standard ones, everybody else (the
program, libraries, the rest of the standard library) goes on to the import system. It is no
Python function, so no traceback has a line of it.

Code that runs without such a name, or that looks into ``sys.modules``, asks here: `module`,
`loaded`, `when_loaded`.

Until something is installed, all this amounts to an ordinary import.
"""

import sys
from importlib import import_module

# what importlib.util and importlib.machinery have, without what these import for their other uses
from importlib._bootstrap import ModuleSpec, module_from_spec

# Names of the standard library's that ours stand in for, with all that is below them.
FAMILIES = ("threading", "queue", "multiprocessing", "concurrent.futures")
ALIAS = __name__ + "."
__path__ = []  # the standard modules are to be had as modules of this one

installed = ()  # the families that are ours now
_waiting = {}  # name of a module that is not loaded yet -> what is to be called with it
_settled = []  # called after a standard module was loaded: (function of name and module)


def governs(name):
    """Whether `name` leads to a module of ours now."""
    return any(name == family or name.startswith(family + ".") for family in installed)


def _has_alias(name):
    return governs(name) or (name == "concurrent" and "concurrent.futures" in installed)


def module(name):
    """The standard module `name`, imported if it is not."""
    return import_module(ALIAS + name if _has_alias(name) else name)


def loaded(name):
    """The standard module `name`, or None if nobody has imported it."""
    return sys.modules.get(ALIAS + name if _has_alias(name) else name)


def when_loaded(name, then):
    """Calls ``then(module)`` with the standard module `name`: now, or when it is imported."""
    found = loaded(name)
    if found is not None:
        then(found)
        return
    _waiting.setdefault(name, []).append(then)
    watch()


def import_for(name, package, fromlist, level):
    """What ``__import__`` returns to importers that are to see the standard modules; None if it
    is not about one of those."""
    if level:
        parts = package.split(".")
        base = ".".join(parts[: len(parts) - level + 1])
        name = f"{base}.{name}" if name else base
    if not _has_alias(name):
        return None
    leaf = module(name)
    if not fromlist:
        return module(name.partition(".")[0])
    if hasattr(leaf, "__path__"):
        for item in fromlist:
            if not _is_complete(getattr(leaf, item, None)):
                _import_part(f"{name}.{item}")
    return leaf


def _is_complete(part):
    """Whether it is there; a module that another thread is loading is to be waited for."""
    spec = getattr(part, "__spec__", None)
    return part is not None and not getattr(spec, "_initializing", False)


def _import_part(name):
    try:
        module(name)
    except ModuleNotFoundError as missing:
        if missing.name != name:
            raise


# -- loading ----------------------------------------------------------------------------------


def watch():
    """Has imports go by `Finder`."""
    if FINDER not in sys.meta_path:
        sys.meta_path.insert(0, FINDER)


def unwatch():
    """The import system as it was, if nobody waits for anything."""
    if not installed and not _waiting and FINDER in sys.meta_path:
        sys.meta_path.remove(FINDER)


def spec_of(name, path=None):
    """The spec of `name` as the program's other finders have it."""
    for finder in list(sys.meta_path):
        if finder is FINDER:
            continue
        spec = finder.find_spec(name, path)
        if spec is not None:
            return spec
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


class Finder:
    """Knows the standard modules by their second names, and the names that are ours now."""

    # set by `_install`: functions of a name that `governs` holds for, which give the spec of what
    # is in its place, and the spec of our module by its own name
    ours = None
    own = None

    def find_spec(self, fullname, path=None, target=None):
        """As finders have it."""
        if fullname.startswith(ALIAS):
            name = fullname[len(ALIAS) :]
            return ModuleSpec(fullname, _Standard(name, path if "." in name else None))
        if governs(fullname):
            return self.ours(fullname)
        if fullname in _waiting:
            spec = spec_of(fullname, path)
            spec.loader = Told(spec.loader, _tell_and_unwatch)
            return spec
        own = fullname.removeprefix("oxgang.")
        return self.own(own, path) if own != fullname and governs(own) else None


FINDER = Finder()


class _Standard:
    """Loads a standard module under its second name."""

    def __init__(self, name, path):
        self.name = name
        self.path = path
        self.spec = None

    def create_module(self, _alias):
        """The module, not yet run."""
        self.spec = spec_of(self.name, self.path)
        # or another thread would be handed the module before it is complete
        self.spec._initializing = True
        return module_from_spec(self.spec)

    def exec_module(self, module):
        """Runs it, as what it is."""
        module.__spec__ = self.spec
        # parts that import each other in a circle find what is not complete yet by
        # ``sys.modules[module.__name__]``, where this one is not
        package = sys.modules.get(ALIAS + self.name.rpartition(".")[0])
        part = self.name.rpartition(".")[2]
        if package is not None:
            setattr(package, part, module)
        try:
            self.spec.loader.exec_module(module)
        except BaseException:
            if package is not None:
                delattr(package, part)
            raise
        finally:
            self.spec._initializing = False
        _tell(self.name, module)
        for settle in _settled:
            settle(self.name, module)


class Told:
    """A loader that calls ``then(module)`` when it has loaded one."""

    def __init__(self, loader, then):
        self._loader = loader
        self._then = then

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        """As the loader has it."""
        return self._loader.create_module(spec)

    def exec_module(self, module):
        """As the loader has it; then somebody is told."""
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._then(module)


def _tell_and_unwatch(module):
    _tell(module.__name__, module)
    unwatch()


def _tell(name, module):
    for then in _waiting.pop(name, ()):
        then(module)
