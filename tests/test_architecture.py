"""The rules of the house: who may import whom, sizes, and what a Cython module brings along.

The sources are read, never imported, so the rules hold for every platform's branch and for
imports that only type checkers see.
"""

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "wirespeed"
CORE = SRC / "_core"
PACKAGE = "wirespeed"
ROOF = "__init__"

# A module imports lower floors only. Packages count as one; inside a package everything
# may import everything, short of a cycle. Modules may be named here before they exist.
# The tens are the floors of the design, the units the landings within one.
FLOORS = {
    "_signatures": 0,
    "_switch": 0,
    "_version": 0,
    "loops": 0,
    "turns": 0,
    "_core": 10,
    "observe": 10,
    "policy": 11,
    "testing": 10,
    "stamps": 15,
    "dialling": 15,
    "direct": 18,
    "sockets": 10,
    "pooling": 15,
    "views": 15,
    "telling": 16,
    "survey": 18,
    "acquisition": 19,
    "autopsy": 20,
    "connector": 20,
    "fallback": 20,
    "typed": 20,
    "upload": 20,
    "response": 21,
    "prepare": 22,
    "shapes": 23,
    "lanes": 30,
    "attempt": 30,
    "call": 31,
    "hooks": 32,
    "express": 33,
    "batch": 35,
    "client": 40,
    "jobs": 45,
    "cluster": 50,
    "patching": 50,
    "cli": 60,
    ROOF: 70,
    "__main__": 80,
    "preload": 80,
}
# The switch alone looks up: it tries whether the core can be imported.
EXEMPT = {("_switch", "_core")}
# The client's responses have one parser. The embedded server and the bare loop that
# benchmarks compare with parse for themselves.
HTTPTOOLS_USERS = ("_core/parser.pyx", "testing/")
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60

CYTHON_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([.\w]+)[ \t]+c?import[ \t]+(.+)|c?import[ \t]+(.+))$", re.MULTILINE
)
CYTHON_FUNCTION = re.compile(r"^(\s*)(?:async\s+def|def|cdef|cpdef)\s(?!.*\b(?:class|struct|union|enum)\b)")
HOME_PATH = re.compile(r"(?<![\w./-])(?:/(?:home|root|Users)/\w|[A-Z]:\\+Users\\)")

pytestmark = pytest.mark.skipif(not SRC.is_dir(), reason="the sources are not here")


def sources(*suffixes: str) -> list[Path]:
    return sorted(path for path in SRC.rglob("*") if path.suffix in suffixes)


def module_of(path: Path) -> str:
    """Name a file's module below the package, dotted; the package's own is `__init__`."""
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == ROOF and len(parts) > 1 else parts)


MODULES = {module_of(path): path for path in sources(".py", ".pyx")}
MODULES |= {module_of(path): path for path in sources(".pxd") if module_of(path) not in MODULES}


def group_of(module: str) -> str:
    return module.partition(".")[0]


def absolute(path: Path, level: int, name: str) -> str:
    """Resolve a relative import to an absolute dotted name."""
    if not level:
        return name
    here = (PACKAGE, *path.relative_to(SRC).parent.parts)
    base = here[: len(here) - level + 1]
    return ".".join([*base, name] if name else base)


def imports_of_python(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, absolute module and imported name of every import, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, absolute(path, node.level, node.module or ""), alias.name


def imports_of_cython(path: Path) -> Iterator[tuple[int, str, str]]:
    text = path.read_text("utf-8")
    # Docstrings, then comments, then line breaks inside parentheses: each keeps its line count.
    text = re.sub(r'("""|\'\'\').*?\1', lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)
    text = re.sub(r"#.*", "", text)
    for match in CYTHON_IMPORT.finditer(re.sub(r"\\\n", " ", text)):
        source, names, modules = match.groups()
        line = text.count("\n", 0, match.start()) + 1
        if modules:
            for module in modules.split(","):
                yield line, module.split(" as ")[0].strip(), ""
            continue
        if names.lstrip().startswith("("):
            names = text[match.start(2) : text.find(")", match.start(2))].lstrip(" (")
        level = len(source) - len(source.lstrip("."))
        for name in names.split(","):
            if name.strip():
                yield line, absolute(path, level, source.lstrip(".")), name.split(" as ")[0].strip()


def all_imports() -> Iterator[tuple[Path, int, str, str]]:
    """Yield file, line, absolute module and imported name over the whole package."""
    for path in sources(".py", ".pyi"):
        yield from ((path, *found) for found in imports_of_python(path))
    for path in sources(".pyx", ".pxd"):
        yield from ((path, *found) for found in imports_of_cython(path))


def own_module(source: str, name: str) -> str | None:
    """Name the module of this package that an import reaches; None when it reaches another one."""
    if source != PACKAGE and not source.startswith(PACKAGE + "."):
        return None
    below = source[len(PACKAGE) + 1 :]
    deeper = f"{below}.{name}" if below else name
    if deeper in MODULES or (not below and name in FLOORS):
        return deeper
    return below or ROOF


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT).as_posix()}:{line}"


def fail(problems: list[str]) -> None:
    assert not problems, "\n  " + "\n  ".join(problems)


def test_every_module_has_a_floor() -> None:
    unknown = sorted({group_of(module) for module in MODULES} - FLOORS.keys())
    fail([f"{name}: add it to FLOORS, in tests/test_architecture.py" for name in unknown])


def test_imports_run_down_only() -> None:
    problems = []
    for path, line, source, name in all_imports():
        target = own_module(source, name)
        if target is None:
            continue
        upper, lower = group_of(module_of(path)), group_of(target)
        if upper == lower or (upper, lower) in EXEMPT or FLOORS.get(lower, -1) < FLOORS.get(upper, -1):
            continue
        floors = f"floor {FLOORS.get(upper)} imports {lower} of floor {FLOORS.get(lower)}"
        problems.append(f"{place(path, line)}: {upper} of {floors}")
    fail(problems)


def test_there_is_no_import_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for path, _, source, name in all_imports():
        target = own_module(source, name)
        if target is not None and target != module_of(path):
            graph.setdefault(module_of(path), set()).add(target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as exc:
        # The sorter was given importers as if they were followers: turn the arrows round.
        fail(["cycle: " + " imports ".join(reversed(exc.args[1]))])


def test_core_knows_no_aiohttp() -> None:
    found = [item for item in all_imports() if item[0].parent == CORE]
    fail([f"{place(p, n)}: the core imports {m}" for p, n, m, _ in found if m.split(".")[0] == "aiohttp"])


def test_only_the_parser_uses_httptools() -> None:
    found = [(p, n) for p, n, module, _ in all_imports() if module.split(".")[0] == "httptools"]
    others = [at for at in found if not at[0].relative_to(SRC).as_posix().startswith(HTTPTOOLS_USERS)]
    fail([f"{place(path, line)}: imports httptools" for path, line in others])


def test_no_file_is_too_long() -> None:
    lengths = [(path, len(path.read_text("utf-8").splitlines())) for path in sources(".py", ".pyx", ".pxd")]
    problems = [f"{place(path, n)}: {n} lines" for path, n in lengths if n > MAX_FILE_LINES]
    fail(problems)


def functions_of_python(path: Path) -> Iterator[tuple[int, int]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


def functions_of_cython(path: Path) -> Iterator[tuple[int, int]]:
    """Yield first line and length of each function, by indentation alone."""
    lines = path.read_text("utf-8").splitlines()
    for start, line in enumerate(lines):
        match = CYTHON_FUNCTION.match(line)
        if match is None or "(" not in line:
            continue
        body = end_of_signature(lines, start)
        if body is None:
            continue
        last = start
        for number in range(body, len(lines)):
            text = lines[number]
            if text.strip() and len(text) - len(text.lstrip()) <= len(match[1]):
                break
            if text.strip():
                last = number
        yield start + 1, last - start + 1


def end_of_signature(lines: list[str], start: int) -> int | None:
    """Find the line after a signature; None when it is a declaration without a body."""
    depth = 0
    for number in range(start, len(lines)):
        code = lines[number].partition("#")[0].rstrip()
        depth += sum(code.count(mark) for mark in "([") - sum(code.count(mark) for mark in ")]")
        if depth <= 0:
            return number + 1 if code.endswith(":") else None
    return None


def test_no_function_is_too_long() -> None:
    found = [(path, item) for path in sources(".py") for item in functions_of_python(path)]
    found += [(path, item) for path in sources(".pyx", ".pxd") for item in functions_of_cython(path)]
    fail([f"{place(path, line)}: {n} lines" for path, (line, n) in found if n > MAX_FUNCTION_LINES])


def test_every_cython_module_has_its_interface_and_its_types() -> None:
    wanted = [path.with_suffix(suffix) for path in sources(".pyx") for suffix in (".pxd", ".pyi")]
    fail([f"{path.relative_to(ROOT)} is missing" for path in wanted if not path.is_file()])


@pytest.mark.parametrize(
    ("what", "pattern", "folders"),
    [
        ("unfinished work", re.compile(r"\b(?:TODO|FIXME|XXX)\b"), ("src",)),
        ("a path of one machine", HOME_PATH, ("src", ".ci", ".github", "benchmarks")),
    ],
    ids=["unfinished", "home-path"],
)
def test_no_file_holds(what: str, pattern: re.Pattern[str], folders: tuple[str, ...]) -> None:
    kinds = {".py", ".pyx", ".pxd", ".pyi", ".md", ".yml", ".toml", ""}
    found = (path for top in folders for path in sorted((ROOT / top).rglob("*")))
    problems = []
    for path in found:
        if path.suffix in kinds and path.is_file():
            lines = enumerate(path.read_text("utf-8").splitlines(), 1)
            problems += [
                f"{place(path, n)}: {what}: {text.strip()}" for n, text in lines if pattern.search(text)
            ]
    fail(problems)


def test_cython_reader_finds_imports_and_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The readers above see nothing wrong when they see nothing: hold them to an example."""
    monkeypatch.setitem(globals(), "SRC", tmp_path)
    path = tmp_path / "_core" / "sample.pyx"
    path.parent.mkdir()
    path.write_text(
        '"""from .docstring import nothing"""\n'
        "from .pool cimport Pool, Host as H  # import comment\n"
        "from . cimport limits\n"
        "from cpython.bytes cimport (\n    PyBytes_Size,\n    PyBytes_Check,\n)\n"
        "cimport cython\n"
        "import aiohttp.web as web, re\n"
        "cdef class Owner(Base):\n"
        "    cdef int grow(\n        self, int by\n    ) except -1:\n"
        "        from ..lanes import LaneReason\n"
        "        return 1\n\n"
        "    cdef int declared(self) except -1\n"
    )
    assert list(imports_of_cython(path)) == [
        (2, "wirespeed._core.pool", "Pool"),
        (2, "wirespeed._core.pool", "Host"),
        (3, "wirespeed._core", "limits"),
        (4, "cpython.bytes", "PyBytes_Size"),
        (4, "cpython.bytes", "PyBytes_Check"),
        (8, "cython", ""),
        (9, "aiohttp.web", ""),
        (9, "re", ""),
        (14, "wirespeed.lanes", "LaneReason"),
    ]
    assert list(functions_of_cython(path)) == [(11, 5)]
