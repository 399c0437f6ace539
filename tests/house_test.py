"""The house stays as it was built: which package imports which, and how long functions and files may be.

`python tests/house_test.py` prints the table of imports between packages and the sizes of the code.
"""

import ast
import collections
import functools
import pathlib
import statistics
import tokenize

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LIBRARY = ROOT / "voc2vec_jax"
MAINS = ("train", "finetune", "evaluate", "__main__")
# What each package may import besides itself: these, and whatever these may import.
BELOW = {
    "printable": (),
    "errors": ("printable",),
    "opening": ("errors",),
    "audio": ("opening",),
    "ops": ("errors",),
    "models": ("ops",),
    "runs": ("opening",),
    "datasets": ("runs", "audio", "ops"),
    "planning": ("models", "runs", "audio"),
    "convert": ("models", "runs"),
    "inference": ("convert", "datasets", "planning"),
    "verification": ("inference",),
    "pretraining": ("inference",),
    "finetuning": ("inference",),
    "reports": ("finetuning",),
    "explore": ("reports",),
    "demo": ("reports",),
    "programs": ("explore", "demo", "pretraining", "verification", *MAINS[:3]),
}
LONGEST_FUNCTION, LONGEST_FILE, LONGEST_MAIN = 60, 400, 100


def modules():
    """Every module of the library: dotted name to path."""
    found = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(module):
    """The package that a module lies in; a module at the root is a room of its own."""
    return module.split(".")[1] if "." in module else "voc2vec_jax"


def imports(path, names):
    """The modules of the library that a file imports, at its top or in a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "voc2vec_jax":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in names else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)


@functools.cache
def arrows():
    """(from, to) of every import between two rooms, with the pairs of modules."""
    names = modules()
    found = collections.defaultdict(list)
    for module, path in names.items():
        for other in imports(path, names):
            if room(module) != room(other):
                found[room(module), room(other)].append((module, other))
    return found


def reachable(package):
    """All that a package may import."""
    direct = BELOW.get(package, ())  # a main stands on everything and under `programs` alone
    return set(direct).union(*(reachable(below) for below in direct))


def functions(path):
    """(lines, name) of every function of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.end_lineno - node.lineno + 1, node.name


def comments_per_100_lines(paths):
    """Comments for 100 lines that hold code."""
    comments = lines = 0
    for path in paths:
        code = set()
        with open(path, "rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type == tokenize.COMMENT:
                    comments += 1
                elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
                    code.update(range(token.start[0], token.end[0] + 1))
        lines += len(code)
    return 100 * comments / max(1, lines)


@pytest.mark.parametrize("package", BELOW)
def test_a_package_imports_what_lies_below_it(package):
    allowed = reachable(package)
    wrong = {other: found for (own, other), found in arrows().items() if own == package and other not in allowed}
    assert not wrong


def test_every_room_is_in_the_table():
    rooms = {room(module) for module in modules()} - {"voc2vec_jax", *MAINS}
    assert rooms == set(BELOW)


def test_modules_do_not_import_each_other_in_circles():
    names = modules()
    # A package's __init__ stands for itself only: importing a module runs it, which no circle of ours depends on.
    graph = {module: {other for other in imports(path, names) if other != module} for module, path in names.items()}
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        path.append(module)
        for other in sorted(graph[module]):
            visit(other)
        path.pop()
        done.add(module)

    for module in graph:
        if module != "voc2vec_jax":
            visit(module)


def test_only_models_import_flax():
    users = {
        room(module)
        for module, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
        if name.split(".")[0] == "flax"
    }
    assert users == {"models"}


def test_functions_and_files_fit_a_reader():
    paths = [*modules().values(), *(ROOT / "tools").rglob("*.py")]
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in paths}
    long = [f"{path}:{name}" for path in paths for lines, name in functions(path) if lines > LONGEST_FUNCTION]
    assert not long
    assert not {path: size for path, size in sizes.items() if size > LONGEST_FILE}
    assert not {main for main in MAINS if sizes[f"voc2vec_jax/{main}.py"] > LONGEST_MAIN}


def show():
    """Prints the table of arrows, and the sizes."""
    found = arrows()
    rooms = [*BELOW, *MAINS]
    print("from \\ to".ljust(12), *(name.rjust(11) for name in BELOW))
    for own in rooms:
        counts = [len(found.get((own, other), ())) for other in BELOW]
        print(own.ljust(12), *((str(count) if count else ".").rjust(11) for count in counts))
    lengths = sorted(lines for path in modules().values() for lines, _ in functions(path))
    p90 = lengths[int(0.9 * len(lengths))]
    print(f"functions: {len(lengths)}, median {statistics.median(lengths):.0f}, p90 {p90}, longest {lengths[-1]} lines")
    largest = max(modules().values(), key=lambda path: len(path.read_text().splitlines()))
    print(f"largest file: {largest.relative_to(ROOT)}, {len(largest.read_text().splitlines())} lines")
    print(f"README: {len((ROOT / 'README.md').read_text().split())} words")
    for own in BELOW:
        paths = [path for module, path in modules().items() if room(module) == own]
        print(f"comments per 100 lines in {own}: {comments_per_100_lines(paths):.1f}")


if __name__ == "__main__":
    show()
