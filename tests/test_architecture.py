"""The house's own rules: which room imports which, how long things are, what is documented."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unmask"
FILES = sorted(SOURCE.rglob("*.py"))
ROOMS = {path.stem for path in SOURCE.iterdir() if not path.name.startswith("__")}

MAY_IMPORT = {
    "core": set(),
    "models": {"core"},
    "evals": {"core", "models"},
    "viz": {"core", "models", "evals"},
    "tasks": {
        *("core", "models", "evals", "viz", "data", "config", "recipes"),
        *("engine", "distributed", "interop", "bench"),
    },
    "config": {"core"},
    "recipes": {"config"},
    "data": {"config", "core"},
    "distributed": set(),
    "bench": {"core", "config", "engine", "distributed", "data", "recipes"},
    "interop": {"config", "core", "models"},
}
"""A room that is listed imports these and itself, nothing else of ours."""

NEVER_IMPORTS = {"engine": {"tasks", "recipes", "data"}}

ON_TOP = {"cli", "demo", "__main__"}
"""Imported by nobody but themselves."""

CORE_LIBRARIES = {"torch", "jaxtyping"}
CONFIG_FILES_THAT_KNOW_CORE = {
    f"config/{name}.py"
    for name in ("cost", "plan", "resolve", "resolve_classify", "schema", "schema_use")
}

FILE_LINES, CORE_FILE_LINES, FUNCTION_LINES, PLAIN_METHOD_LINES = 400, 260, 60, 10


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def room_of(module: str) -> str:
    """`unmask.core.vit` is in `core`; `unmask` itself is the public face, as `unmask.api` is."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] not in ("__init__", "api") else "api"


def room_of_file(path: Path) -> str:
    return room_of("unmask." + ".".join(path.relative_to(SOURCE).with_suffix("").parts))


def imports(tree: ast.AST, package: list[str]) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported, wherever it stands, relative or not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = module == "unmask" and alias.name in ROOMS
                yield node.lineno, f"unmask.{alias.name}" if whole else module


def imports_of(path: Path) -> list[tuple[int, str]]:
    package = ["unmask", *path.relative_to(SOURCE).parts[:-1]]
    return list(imports(ast.parse(path.read_text()), package))


def is_ours(module: str) -> bool:
    return module.split(".")[0] == "unmask"


def objection(path: Path, module: str) -> str | None:
    """Why this file may not import this module, if it may not."""
    here = room_of_file(path)
    if not is_ours(module):
        top = module.split(".")[0]
        foreign = here == "core" and top not in CORE_LIBRARIES | sys.stdlib_module_names
        return "core imports torch, jaxtyping and the standard library only" if foreign else None
    there = room_of(module)
    if there == here:
        return None
    if there in ON_TOP and here not in ON_TOP:
        return f"nobody imports {there}"
    if there == "errors" and here != "core":
        return None
    if here in MAY_IMPORT and there not in MAY_IMPORT[here]:
        return f"{here} imports only {', '.join(sorted(MAY_IMPORT[here])) or 'nothing'} of ours"
    if there in NEVER_IMPORTS.get(here, ()):
        return f"{here} never imports {there}"
    if here == "config" and there == "core" and name_of(path) not in CONFIG_FILES_THAT_KNOW_CORE:
        return f"in config only {', '.join(sorted(CONFIG_FILES_THAT_KNOW_CORE))} import core"
    return None


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_one_way(path):
    found = [(line, module, objection(path, module)) for line, module in imports_of(path)]
    broken = [f"{name_of(path)}:{line} imports {module}: {why}" for line, module, why in found if why]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("file", "line", "allowed"),
    [
        ("core/vit.py", "from unmask.core.blocks import Block", True),
        ("core/vit.py", "from . import blocks", True),
        ("core/vit.py", "import numpy as np", False),
        ("core/vit.py", "from ..config.schema import Run", False),
        ("core/vit.py", "def f():\n    import unmask.models", False),
        ("core/vit.py", "import unmask", False),
        ("models/head.py", "from unmask.core import VisionTransformer", True),
        ("models/head.py", "from unmask.data import folder", False),
        ("viz/grid.py", "from unmask.evals.knn import run", True),
        ("evals/knn.py", "from unmask.viz import grid", False),
        ("engine/loop.py", "from unmask.tasks.pretrain import Pretrain", False),
        ("engine/loop.py", "from unmask.distributed import reduce", True),
        ("config/resolve.py", "from unmask.core import Architecture", True),
        ("config/io.py", "from unmask.core import Architecture", False),
        ("recipes/pretrain.py", "from ..core import Architecture", False),
        ("api.py", "from unmask.cli.main import main", False),
        ("__init__.py", "from .api import pretrain", True),
        ("__main__.py", "from unmask.cli.main import main", True),
        ("cli/demo.py", "from unmask.demo import serve", True),
        ("demo/page.py", "import unmask", True),
    ],
)
def test_the_import_rules_themselves(file, line, allowed):
    package = ["unmask", *Path(file).parts[:-1]]
    objections = [objection(SOURCE / file, module) for _, module in imports(ast.parse(line), package)]
    assert (objections == [None]) is allowed


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_are_short(path):
    text = path.read_text()
    most = CORE_FILE_LINES if room_of_file(path) == "core" else FILE_LINES
    lines = len(text.splitlines())
    assert lines <= most, f"{name_of(path)} has {lines} lines, and {most} are allowed"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = length(node)
            assert lines <= FUNCTION_LINES, (
                f"{name_of(path)}:{node.lineno} {node.name} has {lines} lines, "
                f"and {FUNCTION_LINES} are allowed"
            )


def length(node: ast.stmt) -> int:
    return node.end_lineno - node.lineno + 1


def undocumented(tree: ast.Module, in_core: bool) -> Iterator[str]:
    """Public functions and classes without a docstring, and methods where they are long."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if node.name.startswith("_"):
            continue
        is_class = isinstance(node, ast.ClassDef)
        is_layer = is_class and any(ast.unparse(base) == "nn.Module" for base in node.bases)
        tiny_layer = in_core and is_layer and length(node) <= PLAIN_METHOD_LINES
        if not (ast.get_docstring(node) or tiny_layer):
            yield f"{node.lineno} {node.name}"
        for method in node.body if is_class else ():
            if (
                isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
                and not method.name.startswith("_")
                and method.name != "forward"
                and length(method) > PLAIN_METHOD_LINES
                and not ast.get_docstring(method)
            ):
                yield f"{method.lineno} {node.name}.{method.name}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_what_is_public_is_documented(path):
    found = undocumented(ast.parse(path.read_text()), room_of_file(path) == "core")
    missing = [f"{name_of(path)}:{what} has no docstring" for what in found]
    assert not missing, "\n".join(missing)
