"""The tree keeps its rules; each rule sees a breach; what the documents promise runs."""

import importlib
import pkgutil
import subprocess
import sys

import pytest
import tidy

BLOCKS = {name: code for name, code in tidy.code_blocks(tidy.ROOT) if "..." not in code}


@pytest.mark.parametrize("rule", tidy.RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps(rule):
    assert list(rule(tidy.ROOT)) == []


def crate(name, **tables):
    lines = [f'[package]\nname = "{name}"']
    lines += [f"[{table.replace('_', '-')}]\n{content}" for table, content in tables.items()]
    return "\n".join(lines)


BREACHES = {
    "upward": (
        tidy.layers,
        {"crates/oxgang-shm/Cargo.toml": crate("oxgang-shm", dependencies="oxgang.workspace=true")},
        "must not know oxgang",
    ),
    "upward in tests": (
        tidy.layers,
        {"crates/oxgang/Cargo.toml": crate("oxgang", dev_dependencies='oxgang-py = "0"')},
        "must not know oxgang-py",
    ),
    "system calls": (
        tidy.layers,
        {"crates/oxgang-shm/Cargo.toml": crate("oxgang-shm", dependencies='rustix = "1"')},
        "no rustix",
    ),
    "unplaced crate": (
        tidy.layers,
        {"crates/oxgang-new/Cargo.toml": crate("oxgang-new")},
        "no place among the layers",
    ),
    "unsafe in the engine": (
        tidy.unsafe_rooms,
        {"crates/oxgang/src/a.rs": "//! Unsafe since.\nfn f() { unsafe { g() } }\n"},
        "outside its rooms",
    ),
    "unsafe unexplained": (
        tidy.unsafe_rooms,
        {"crates/oxgang-os/src/a.rs": "//! Maps.\nunsafe impl Send for A {}\n"},
        "must say why",
    ),
    "unsafe twice in the binding": (
        tidy.unsafe_rooms,
        {
            f"crates/oxgang-py/src/{name}.rs": "//! Unsafe: lends.\nunsafe fn f() {}\n"
            for name in "ab"
        },
        "more than one file",
    ),
    "unsafe unnamed": (
        tidy.unsafe_rooms,
        {
            "crates/oxgang-os/src/lib.rs": "//! Safety: unsafe code is in `b`.\n",
            "crates/oxgang-os/src/a.rs": "//! Unsafe: maps.\nunsafe fn f() {}\n",
        },
        "must name it",
    ),
    "no docstring": (
        tidy.python_modules,
        {"python/oxgang/a.py": "__all__ = []\n"},
        "no docstring",
    ),
    "no exports": (
        tidy.python_modules,
        {"python/oxgang/a.py": '"""A."""\nx = 1\n'},
        "no __all__",
    ),
    "standard module by name": (
        tidy.standard_modules,
        {"python/oxgang/_a.py": "import sys\nx = sys.modules.get('multiprocessing.process')\n"},
        "_standard.loaded",
    ),
    "long file": (tidy.file_sizes, {"a.py": "x = 1\n" * 701}, "701 lines"),
    "dead link": (tidy.links, {"docs/a.md": "[b](b.md)"}, "leads to b.md"),
    "dead heading": (tidy.links, {"a.md": "# One two\n[b](#two)"}, "a heading"),
    "not Python": (tidy.code_compiles, {"README.md": "```python\nx = = 1\n```\n"}, "README.md:2"),
}


@pytest.mark.parametrize("case", BREACHES)
def test_a_breach_is_seen(case, tmp_path):
    rule, tree, message = BREACHES[case]
    for name, content in tree.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    found = list(rule(tmp_path))
    assert len(found) == 1
    assert message in found[0]


GOOD = {
    "crates/oxgang/Cargo.toml": crate("oxgang", dependencies="oxgang-os.workspace=true"),
    "crates/oxgang/src/lib.rs": '// no unsafe { here }\nconst A: &str = "unsafe {";\n',
    "crates/oxgang-os/src/a.rs": "//! Unsafe: the kernel's door.\nfn f() { unsafe { g() } }\n",
    "python/oxgang/_private.py": "x = 1\n",
    "python/oxgang/__init__.py": '"""A."""\n__all__ = ["x"]\n',
    "python/oxgang/concurrent/__init__.py": '"""A."""\n',
    "README.md": "# Two words!\n[a](#two-words) [b](docs/b.md#x) [c](https://h/x)\n"
    "```text\n[d](nowhere)\n```\n",
    "docs/b.md": "## X\n",
}


def test_a_good_tree_has_no_breach(tmp_path):
    for name, content in GOOD.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert [breach for rule in tidy.RULES for breach in rule(tmp_path)] == []


@pytest.mark.parametrize("name", BLOCKS)
def test_documented_code_runs(name, tmp_path):
    program = tmp_path / "block.py"
    program.write_text(BLOCKS[name])
    done = subprocess.run(
        [sys.executable, program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def public_modules():
    package = importlib.import_module("oxgang")
    yield "oxgang"
    for module in pkgutil.walk_packages(package.__path__, "oxgang."):
        if not any(part.startswith("_") for part in module.name.split(".")):
            yield module.name


@pytest.mark.parametrize("name", list(public_modules()))
def test_exports_exist(name):
    module = importlib.import_module(name)
    missing = [public for public in getattr(module, "__all__", ()) if not hasattr(module, public)]
    assert missing == []
