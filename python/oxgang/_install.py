"""`oxgang.install`: this package's modules in the place of the standard ones.

`_standard` says how the two live side by side. Here is who is put where, what children are told,
and how it is undone.

A module of ours is put in place when the program first asks for it, so that what a program does
not use costs it nothing. What ours does not have, a private name that a library knows, is looked
up in the standard module. Where there is no module of ours, the standard one is in its own place.

Children: a fork has it all. To the template process, and through `multiprocessing`'s own
preparation data to every process that any of its contexts starts, goes an order to install the
same (`order`), which is carried out before anything of the program's is imported. Python processes
that are started in other ways are told by the environment, if wanted: see `_run`.
"""

import builtins
import os
import sys
import warnings
from importlib import import_module

from oxgang import _standard
from oxgang._core import Importer

# Who goes on seeing the standard modules: this package, and executors that are made of the standard
# queues' and synchronize's private parts. (Loky's workers are started in ways of its own, too.)
_BUILDERS = ("oxgang", "loky", "joblib.externals.loky")

_lent = {}  # module of ours -> its own __getattr__, or None
_loading = set()
children = False


def install(only=None, *, children=False):
    """From now on ``import threading``, ``queue``, ``multiprocessing`` and ``concurrent.futures``,
    with all that is below them, give oxgang's modules: everywhere in this process, and in every
    Python process that it starts through them. What was imported before keeps working beside it.

    May be called again, to exchange more.

    Args:
        only: Names of those to exchange: a list, or text such as "multiprocessing,queue".
        children: Also in Python processes that this one starts in other ways (`subprocess`).

    Raises:
        ValueError: `only` names something else, or nothing.
    """
    wanted = _checked(only)
    _install(wanted)
    if children:
        from oxgang._run import tell_children

        tell_children(_standard.installed)


def _checked(only):
    if only is None:
        return _standard.FAMILIES
    names = only.split(",") if isinstance(only, str) else list(only)
    names = [name.strip() for name in names]
    unknown = [name for name in names if name not in _standard.FAMILIES]
    if unknown or not names:
        raise ValueError(
            f"only={only!r}: name one or more of {', '.join(_standard.FAMILIES)}; each comes with "
            "all that is below it"
        )
    return tuple(name for name in _standard.FAMILIES if name in names)


def _install(wanted):
    before = _standard.installed
    families = tuple(
        name
        for name in _standard.FAMILIES
        if name in before or (name in wanted and not _is_programs_own(name))
    )
    if families == before:
        return
    # such modules of the standard library as the program has already
    known = [name for name in sys.modules if _is_within(name, set(families) - set(before))]
    _standard.installed = families
    _standard.FINDER.ours = _spec_of_ours
    _standard.FINDER.own = _spec_of_lender
    if _settle not in _standard._settled:
        _standard._settled.append(_settle)
    _stand_in(families)
    _standard.watch()
    if LAST not in sys.meta_path:
        sys.meta_path.append(LAST)
    if "concurrent.futures" in families and _standard.ALIAS + "concurrent" not in sys.modules:
        _second_concurrent()
    for name in known:
        sys.modules[_standard.ALIAS + name] = sys.modules.pop(name)
    for name in known:
        _keep_whole(name)
    for name, module in list(sys.modules.items()):
        own = name.removeprefix("oxgang.")
        if own != name and _is_within(own, families):
            _lend(module, own)
    if "threading" in families and "threading" not in known:
        # The interpreter asks for it by name at its end, to wait for threads. When somebody loads
        # the standard one would be too late: that thread holds a lock of the import system then.
        known.append("threading")
    for name in known:
        _settle(name, _standard.module(name))
        import_module(name)
    _end_template()


def _is_within(name, families):
    return any(name == family or name.startswith(family + ".") for family in families)


def _stand_in(families):
    current = builtins.__import__
    original = current.original if isinstance(current, Importer) else current
    builtins.__import__ = Importer(original, _standard.import_for, families, _BUILDERS)


def _second_concurrent():
    """The package `concurrent` is nobody's, but its attribute `futures` is."""
    real = import_module("concurrent")
    twin = type(sys)("concurrent", real.__doc__)
    vars(twin).update(vars(real))
    sys.modules[_standard.ALIAS + "concurrent"] = twin

    def __getattr__(name):
        # functions that were sent here by value have the package, and expect the rest in it
        if name == "futures":
            return import_module("concurrent.futures")
        raise AttributeError(f"module 'concurrent' has no attribute {name!r}")

    real.__getattr__ = __getattr__


def _keep_whole(name):
    """The second name of a standard module's parent must be there, too."""
    parent = name.rpartition(".")[0]
    if parent:
        _standard.module(parent)


def _end_template():
    """Workers to come have it from the start."""
    template = sys.modules.get("oxgang._template")
    if template is not None:
        template.end()


# -- one of ours --------------------------------------------------------------------------------


def _spec_of_ours(name):
    if name in _loading:
        # our module is being loaded, and something that it needs asks for it by the standard
        # name: that gets the standard module
        return _standard.ModuleSpec(name, _Standard(name))
    if name in _standard.FAMILIES:
        spec = _standard.spec_of(name, _parent_path(name))
        if not is_standard(spec.origin):
            # a file of the program's own has that name, as it might under plain Python
            _give_up(name)
            return spec
    return _standard.ModuleSpec(name, _Ours(name))


def _parent_path(name):
    parent = name.rpartition(".")[0]
    return sys.modules[parent].__path__ if parent else None


def is_standard(origin):
    """Whether a file is one of the standard library's."""
    library = os.path.dirname(os.__file__) + os.sep
    others = library + "site-packages" + os.sep
    if origin is None or not os.path.isabs(origin):
        return True  # of a program that is frozen
    return origin.startswith(library) and not origin.startswith(others)


def _is_programs_own(family):
    origin = getattr(sys.modules.get(family), "__file__", None)
    return not is_standard(origin)


def _give_up(family):
    _standard.installed = tuple(name for name in _standard.installed if name != family)
    _stand_in(_standard.installed)


class _Ours:
    """Loads the module that is to be in a standard one's place."""

    def __init__(self, name):
        self.name = name
        self.spec = None

    def create_module(self, _spec):
        """The module: ours, or the standard one where there is none."""
        _loading.add(self.name)
        try:
            module = _counterpart(self.name)
        finally:
            _loading.discard(self.name)
        self.spec = module.__spec__
        return module

    def exec_module(self, module):
        """It has run already; but the import system has written its own name into it."""
        module.__spec__ = self.spec


class _Standard(_Ours):
    """Loads the standard module after all."""

    def create_module(self, _spec):
        """The module, run."""
        module = _standard.module(self.name)
        self.spec = module.__spec__
        return module


def _counterpart(name):
    return import_module("oxgang." + name)


def _spec_of_lender(name, path):
    """The spec of our module by its own name; loaded, it has from the standard module what it
    lacks. None where we have none."""
    for finder in list(sys.meta_path):
        if finder is _standard.FINDER or finder is LAST:
            continue
        spec = finder.find_spec("oxgang." + name, path)
        if spec is not None:
            spec.loader = _standard.Told(spec.loader, lambda module: _lend(module, name))
            return spec
    return None


class _Last:
    """Asked when no other finder knows: what our packages lack, they have from the standard
    library."""

    def find_spec(self, fullname, path=None, target=None):
        """As finders have it."""
        name = fullname.removeprefix("oxgang.")
        if name == fullname or not _standard.governs(name):
            return None
        return _standard.ModuleSpec(fullname, _Standard(name))


LAST = _Last()


def _lend(module, name):
    """What `module` lacks, it has from the standard module."""
    if module in _lent or type(module) is not type(sys) or module is _standard.loaded(name):
        return  # one with a class of its own sees to that itself
    own = _lent[module] = vars(module).get("__getattr__")

    def __getattr__(attribute):
        if own is not None:
            try:
                return own(attribute)
            except AttributeError:
                pass
        if not (attribute.startswith("__") and attribute.endswith("__")):
            try:
                found = getattr(_standard.module(name), attribute)
            except AttributeError:
                pass
            else:
                part = isinstance(found, type(sys)) and found.__name__ == f"{name}.{attribute}"
                return import_module(f"{module.__name__}.{attribute}") if part else found
        raise AttributeError(f"module {name!r} has no attribute {attribute!r}")

    vars(module)["__getattr__"] = __getattr__


def _settle(name, module):
    """A standard module has been loaded."""
    if not _standard.governs(name):
        return
    if name == "multiprocessing.spawn":
        _add_order(module)
    elif name == "multiprocessing.forkserver":
        _add_preload(module.ForkServer)


# -- children -----------------------------------------------------------------------------------


def order():
    """Code that installs in another process what is installed in this one; empty: nothing is."""
    if not _standard.installed:
        return ""
    from oxgang import _report

    return (
        "import sys\n"
        "try:\n"
        "    from oxgang import _install\n"
        "except ImportError:\n"
        f"    sys.path.append({_folder()!r})\n"
        "    try:\n"
        "        from oxgang import _install\n"
        "    finally:\n"
        "        sys.path.pop()\n"
        f"_install.carry_out({_standard.installed!r}, {_report.address()!r})\n"
    )


def carry_out(families, address):
    """What `order` says."""
    from oxgang import _report

    _report.join(address)
    _install(families)


def _folder():
    """Where this package is to be found."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class _Order:
    """Carries itself out when it is unpickled, before anything else of a child's preparation."""

    def __reduce__(self):
        return exec, (order(), {})


def _add_order(spawn):
    plain = spawn.get_preparation_data

    def get_preparation_data(name):
        if not _standard.installed:
            return plain(name)
        return {"oxgang": _Order(), **plain(name)}

    spawn.get_preparation_data = get_preparation_data


def _add_preload(server):
    """The fork server imports what the program told it to, in its order."""
    plain = server.ensure_running

    def ensure_running(self):
        if not _standard.installed or "oxgang._here" in self._preload_modules:
            return plain(self)
        preload = self._preload_modules
        self._preload_modules = ["oxgang._here", *preload]
        os.environ["OXGANG_HERE"] = order()
        try:
            return plain(self)
        finally:
            self._preload_modules = preload
            os.environ.pop("OXGANG_HERE", None)

    server.ensure_running = ensure_running


# -- undoing it -----------------------------------------------------------------------------------


def uninstall():
    """Undoes `install`: imports from now on give the standard modules.

    What has been imported meanwhile stays what it is, and works. Such modules are named in a
    `RuntimeWarning` and returned; they are to be imported anew to have the standard modules, or
    the program to be started anew.

    Returns:
        list: The names of modules that go on using oxgang's.
    """
    if not _standard.installed:
        return []
    from oxgang._run import tell_no_children

    tell_no_children()
    families = _standard.installed
    left = users(families)
    current = builtins.__import__
    if isinstance(current, Importer):
        builtins.__import__ = current.original
    _standard.installed = ()
    for name in [name for name in sys.modules if _is_within(name, families)]:
        del sys.modules[name]
    for name in [name for name in sys.modules if name.startswith(_standard.ALIAS)]:
        module = sys.modules.pop(name)
        if name != _standard.ALIAS + "concurrent":
            sys.modules[name.removeprefix(_standard.ALIAS)] = module
    concurrent = sys.modules.get("concurrent")
    if concurrent is not None and "concurrent.futures" in families:
        del concurrent.__getattr__
        vars(concurrent).pop("futures", None)
        if "concurrent.futures" in sys.modules:
            concurrent.futures = sys.modules["concurrent.futures"]
    while _lent:
        module, own = _lent.popitem()
        if own is None:
            vars(module).pop("__getattr__", None)
        else:
            vars(module)["__getattr__"] = own
    _standard.unwatch()
    sys.meta_path.remove(LAST)
    _end_template()
    if left:
        warnings.warn(
            f"oxgang.uninstall: {', '.join(left)} imported oxgang's modules and will go on using "
            "them; import them anew, or start the program without oxgang",
            RuntimeWarning,
            stacklevel=2,
        )
    return left


def users(families):
    """Modules that have something of ours, got by a standard name."""
    ours = {id(module) for name, module in sys.modules.items() if _is_within(name, families)}
    prefixes = tuple(f"oxgang.{family}" for family in families)
    found = []
    for name, module in list(sys.modules.items()):
        if module is None or name == "concurrent" or _is_within(name, {"oxgang", *families}):
            continue
        for value in list(getattr(module, "__dict__", {}).values()):
            home = getattr(value, "__module__", None) if isinstance(value, type) else None
            if id(value) in ours or (isinstance(home, str) and home.startswith(prefixes)):
                found.append(name)
                break
    return sorted(found)
