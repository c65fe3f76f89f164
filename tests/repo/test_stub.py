"""`_core.pyi` says what the built module has: no name more, no name less."""

import ast
from pathlib import Path

import oxgang
from oxgang import _core

STUB = Path(oxgang.__file__).with_name("_core.pyi")
INTERNAL = {
    *("__new__", "__enter__", "__exit__", "__iter__", "__next__", "__len__"),
    *("__getitem__", "__reversed__", "__buffer__", "__bytes__", "__await__"),
}
# what the standard classes read of a future; their names, not an interface of ours
OF_FUTURES = {
    "_condition",
    "_done_callbacks",
    "_exception",
    "_get_snapshot",
    "_invoke_callbacks",
    "_result",
    "_state",
    "_waiters",
}


def stub_names():
    tree = ast.parse(STUB.read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return classes, functions, tree


def test_names_of_the_module():
    classes, functions, tree = stub_names()
    listed = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    )
    built = {name for name in dir(_core) if not name.startswith("__")} | {"__version__"}
    assert set(listed) == built
    assert set(classes) | functions | {"__version__"} == built


def test_members_of_the_classes():
    classes, _, _ = stub_names()
    for name, node in classes.items():
        written = {one.name for one in node.body if isinstance(one, ast.FunctionDef)} - INTERNAL
        written |= {one.target.id for one in node.body if isinstance(one, ast.AnnAssign)}
        built = {
            member
            for member in vars(getattr(_core, name))
            if not member.startswith("__") and member not in OF_FUTURES
        }
        if isinstance(getattr(_core, name), type) and issubclass(
            getattr(_core, name), BaseException
        ):
            continue
        assert written == built, name


def test_everything_has_a_word_of_explanation():
    classes, _, _ = stub_names()
    for name, node in classes.items():
        assert ast.get_docstring(node), name
