"""The rules of the tree that no compiler checks. Run it: one line per breach, then a count.

Each rule is a function from the root folder to the breaches it finds, so that its own tests can
show it a tree with a breach in it. Needs nothing but the standard library.
"""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Who may know whom. A crate that is not here has no place yet: give it one.
LAYERS = {
    "oxgang-shm": set(),
    "oxgang-os": set(),
    "oxgang": {"oxgang-shm", "oxgang-os"},
    "oxgang-cli": {"oxgang"},
    "oxgang-py": {"oxgang-shm", "oxgang-os", "oxgang", "oxgang-cli"},
}
SYSTEM_CALLS = {"libc", "linux-raw-sys", "memmap2", "nix", "rustix", "syscalls", "windows-sys"}
UNSAFE_ROOMS = ("crates/oxgang-os/",)
UNSAFE_FILES_IN_BINDING = 1
LONGEST_FILE = 700

_UNSAFE = re.compile(r"\bunsafe\s*(\{|fn\b|impl\b|extern\b|trait\b|\()|allow\(unsafe_code")
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.M | re.S)


def files(root, *suffixes):
    """What belongs to the repository: known to git, or new and not ignored."""
    command = ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        paths = [root / name for name in listed.stdout.split("\0") if name]
    else:  # an unpacked source archive
        hidden = {"target", "__pycache__"}
        paths = [path for path in root.rglob("*") if not _hidden(path.relative_to(root), hidden)]
    return sorted(path for path in paths if path.is_file() and path.suffix in suffixes)


def _hidden(relative, names):
    return any(part.startswith(".") or part in names for part in relative.parts)


def _name(root, path):
    return path.relative_to(root).as_posix()


def layers(root):
    """No crate depends on one above it, and what lives in memory makes no system calls."""
    for manifest in sorted((root / "crates").glob("*/Cargo.toml")):
        content = tomllib.loads(manifest.read_text())
        crate = content["package"]["name"]
        if crate not in LAYERS:
            yield f"{_name(root, manifest)}: {crate} has no place among the layers of tidy.py"
            continue
        needed = set()
        for table in [content, *content.get("target", {}).values()]:
            for kind in ("dependencies", "build-dependencies", "dev-dependencies"):
                needed |= set(table.get(kind, {}))
        upward = {name for name in needed if name.startswith("oxgang")} - LAYERS[crate] - {crate}
        for name in sorted(upward):
            yield f"{_name(root, manifest)}: {crate} must not know {name}"
        called = set(content.get("dependencies", {})) & SYSTEM_CALLS
        for name in sorted(called if crate == "oxgang-shm" else ()):
            yield f"{_name(root, manifest)}: {crate} makes no system calls, so no {name}"


def unsafe_rooms(root):
    """Unsafe code stays in its rooms, and each such file says at its top why it is there; the door
    of its crate names it."""
    in_binding = []
    for path in files(root, ".rs"):
        text = path.read_text()
        code = re.sub(r"//[^\n]*|\"(?:\\.|[^\"\\\n])*\"", "", text)
        if not _UNSAFE.search(code):
            continue
        name = _name(root, path)
        if name.startswith("crates/oxgang-py/src/"):
            in_binding.append(name)
        elif not name.startswith(UNSAFE_ROOMS):
            yield f"{name}: unsafe code outside its rooms ({', '.join(UNSAFE_ROOMS)})"
        top = "\n".join(re.findall(r"^//![^\n]*", text, re.M))
        if not re.search(r"unsafe|safety", top, re.I):
            yield f"{name}: has unsafe code; its opening comment (//!) must say why"
        door = path.with_name("lib.rs")
        named = not door.exists() or f"`{path.stem}`" in door.read_text()
        if name.startswith(UNSAFE_ROOMS) and not named:
            yield f"{name}: has unsafe code; {_name(root, door)} must name it among its rooms"
    if len(in_binding) > UNSAFE_FILES_IN_BINDING:
        yield f"crates/oxgang-py: more than one file with unsafe code: {', '.join(in_binding)}"


def python_modules(root):
    """Every public module of the package has a docstring and says what it exports."""
    package = root / "python"
    for path in files(root, ".py"):
        if not path.is_relative_to(package):
            continue
        parts = path.relative_to(package).with_suffix("").parts
        if any(part.startswith("_") and part != "__init__" for part in parts):
            continue
        tree = ast.parse(path.read_text())
        if ast.get_docstring(tree) is None:
            yield f"{_name(root, path)}: no docstring"
        only_docstring = len(tree.body) <= 1
        if not only_docstring and not any(_sets_all(statement) for statement in tree.body):
            yield f"{_name(root, path)}: no __all__"


def _sets_all(statement):
    if isinstance(statement, ast.Assign):
        return any(getattr(target, "id", "") == "__all__" for target in statement.targets)
    target = getattr(statement, "target", None)
    return isinstance(statement, ast.AnnAssign) and getattr(target, "id", "") == "__all__"


def standard_modules(root):
    """Who looks for a standard module in ``sys.modules`` may find ours there: ask `_standard`."""
    families = r"(?:threading|queue|multiprocessing|concurrent)(?:\.[\w.]+)?"
    asked = re.compile(rf"sys\.modules(?:\.get\(|\[)\s*[\"']({families})[\"']")
    for path in files(root, ".py"):
        if not path.is_relative_to(root / "python") or path.name in {"_standard.py", "_install.py"}:
            continue
        for found in asked.finditer(path.read_text()):
            yield f"{_name(root, path)}: sys.modules may have oxgang's {found[1]}: _standard.loaded"


def file_sizes(root):
    """A file that needs a table of contents has a seam somewhere."""
    for path in files(root, ".rs", ".py", ".sh"):
        count = path.read_text().count("\n")
        if count > LONGEST_FILE:
            yield f"{_name(root, path)}: {count} lines, more than {LONGEST_FILE}: find the seam"


def links(root):
    """Relative links of the documents lead to a file, and to a heading where they name one."""
    for path in files(root, ".md"):
        text = _FENCE.sub("", path.read_text())
        for target in _LINK.findall(text):
            if re.match(r"[a-z][a-z+.-]*:", target):
                continue
            file, _, heading = target.partition("#")
            led_to = (path.parent / file) if file else path
            if not led_to.exists():
                yield f"{_name(root, path)}: leads to {target}, which is not there"
            elif heading and led_to.suffix == ".md" and heading not in _headings(led_to):
                yield f"{_name(root, path)}: leads to {target}, a heading that is not there"


def _headings(path):
    found = set()
    for line in re.findall(r"^#+\s+(.*?)\s*#*$", _FENCE.sub("", path.read_text()), re.M):
        plain = re.sub(r"[^\w\- ]", "", line.lower())
        found.add(plain.replace(" ", "-"))
    return found


def code_blocks(root):
    """(name, code) of each python block in README.md and docs/; also used to run them."""
    for path in files(root, ".md"):
        name = _name(root, path)
        if name != "README.md" and not name.startswith("docs/"):
            continue
        text = path.read_text()
        for block in _FENCE.finditer(text):
            if block[1] == "python":
                line = text.count("\n", 0, block.start(2)) + 1
                yield f"{name}:{line}", block[2]


def code_compiles(root):
    """Python in the documents is at least Python."""
    for name, code in code_blocks(root):
        try:
            compile(code, name, "exec")
        except SyntaxError as problem:
            yield f"{name}: line {problem.lineno} of the block: {problem.msg}"


RULES = (layers, unsafe_rooms, python_modules, standard_modules, file_sizes, links, code_compiles)


def main():
    failed = 0
    for rule in RULES:
        breaches = list(rule(ROOT))
        failed += bool(breaches)
        for breach in breaches:
            print(f"{rule.__name__}: {breach}")
    print(f"{len(RULES) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
