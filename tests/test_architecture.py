"""The house's own rules: which room imports which, how long things are, what is documented."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unmask"
FILES = sorted(SOURCE.rglob("*.py"))
ROOMS = {path.stem for path in SOURCE.iterdir() if not path.name.startswith("__")}

LAYERS = (
    {"core"},
    {"models"},
    {"config"},
    {"recipes", "distributed", "data", "evals", "viz", "interop", "engine"},
    {"inference"},
    {"tasks"},
    {"cost"},
    {"use"},
    {"runs"},
    {"bench"},
    {"api"},
    {"cli", "demo"},
)
"""From the bottom: a room imports those in the layers below its own."""

BESIDE = {("engine", "distributed"), ("viz", "evals"), ("cli", "demo")}
"""Rooms of one layer of which the first imports the second."""

ONLY = {"models": {"core"}, "recipes": {"config"}, "distributed": set()}
"""Rooms that import less than their layer allows."""

FOUNDATIONS = {"errors", "faults", "storage", "units"}
"""Single files below all rooms, of the standard library only; all but core import them."""

CORE_LIBRARIES = {"torch", "jaxtyping"}
WITHOUT_TORCH = ("config", "recipes")
"""Rooms for `--help`, and so for what begins in a moment; specs too, wherever they stand."""

FILE_LINES, CORE_FILE_LINES, FUNCTION_LINES, PLAIN_METHOD_LINES = 350, 200, 60, 10


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
    if there == here or here == "__main__":
        return None
    if there in FOUNDATIONS or here in FOUNDATIONS:
        downwards = there in FOUNDATIONS and here != "core"
        return None if downwards else f"{here} does not import {there}"
    if there not in ONLY.get(here, {there}):
        return f"{here} imports only {', '.join(sorted(ONLY[here])) or 'nothing'} of ours"
    if layer_of(there) >= layer_of(here) and (here, there) not in BESIDE:
        return f"{there} is not below {here}"
    return None


def layer_of(room: str) -> int:
    """Counted from the bottom."""
    return next(i for i, rooms in enumerate(LAYERS) if room in rooms)


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
        ("core/vit.py", "from ..config.settings import Run", False),
        ("core/vit.py", "def f():\n    import unmask.models", False),
        ("core/vit.py", "import unmask", False),
        ("core/vit.py", "from unmask.errors import DataError", False),
        ("models/head.py", "from unmask.core.vit import VisionTransformer", True),
        ("models/head.py", "from unmask.data import folder", False),
        ("models/head_spec.py", "from unmask.config.image import ImageSpec", False),
        ("config/resolve.py", "from unmask.core.spec import MAESpec", True),
        ("config/io.py", "import unmask.models", True),
        ("config/io.py", "from unmask.recipes import choose_recipe", False),
        ("recipes/pretrain.py", "from ..core import MAESpec", False),
        ("viz/grid.py", "from unmask.evals.knn import run", True),
        ("evals/knn.py", "from unmask.viz import grid", False),
        ("data/loader.py", "from unmask.engine.task import Metric", False),
        ("engine/loop.py", "from unmask.data.loader import Batches", False),
        ("engine/loop.py", "from unmask.tasks.pretrain import Pretrain", False),
        ("engine/loop.py", "from unmask.distributed.processes import Processes", True),
        ("inference.py", "from unmask.data.centre_crops import CentreCrops", True),
        ("engine/report.py", "from unmask.inference import infer", False),
        ("tasks/pretrain.py", "from unmask.use.knn import run_knn", False),
        ("use/check.py", "from unmask.cost.predict import predict", True),
        ("cost/predict.py", "from unmask.use.check import Check", False),
        ("use/knn.py", "from unmask.runs.run import run", False),
        ("api.py", "from unmask.bench.run import run_bench", True),
        ("api.py", "from unmask.cli.main import main", False),
        ("runs/run.py", "import unmask.api", False),
        ("__init__.py", "from .api import pretrain", True),
        ("__main__.py", "from unmask.cli.main import main", True),
        ("cli/demo.py", "from unmask.demo import serve", True),
        ("demo/page.py", "import unmask", True),
        ("storage.py", "from unmask.faults import notice", True),
        ("storage.py", "from unmask.config.io import to_json", False),
    ],
)
def test_the_import_rules_themselves(file, line, allowed):
    package = ["unmask", *Path(file).parts[:-1]]
    objections = [objection(SOURCE / file, module) for _, module in imports(ast.parse(line), package)]
    assert (objections == [None]) is allowed


def test_what_is_for_help_imports_no_torch():
    """In a process of its own, as a user begins."""
    needed = [
        path for path in FILES if room_of_file(path) in WITHOUT_TORCH or path.stem.endswith("spec")
    ]
    script = f"import sys, {', '.join(map(module_of, needed))}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "unmask.core.spec" in done.stdout.split()
    assert not {"torch", "numpy", "PIL", "matplotlib"} & set(done.stdout.split())


PACKAGES = [path for path in FILES if path.name == "__init__.py" and path.parent != SOURCE]


@pytest.mark.parametrize("path", PACKAGES, ids=name_of)
def test_packages_import_nothing_heavy(path):
    """What stands in an __init__ is paid for by everyone who wants one of its modules."""
    rooms = {room_of(module) for _, module in imports_of(path) if is_ours(module)}
    assert rooms <= {room_of_file(path), "config", "recipes"}


def module_of(path: Path) -> str:
    parts = ["unmask", *path.relative_to(SOURCE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_nodes(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import, those inside functions too; none that only a type checker sees.

    Nor what a spec's `build` or `around` imports: a spec knows what it builds, which is made of it.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
            continue
        for_types = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        builds = isinstance(node, ast.FunctionDef) and node.name in ("build", "around")
        if not (for_types or builds):
            yield from import_nodes(node)


def modules_imported(tree: ast.AST, package: list[str], known: set[str]) -> set[str]:
    """Our own modules that a file names; `from package import module` names the module."""
    found = set()
    for node in import_nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        base = package[: len(package) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            below = f"{module}.{alias.name}"
            found.add(below if below in known else module)
    return found & known


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules of which each imports the one before, from one back to itself; empty if none do."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_module_imports_itself_through_others():
    known = {module_of(path) for path in FILES}
    graph = {
        module_of(path): modules_imported(
            ast.parse(path.read_text()), ["unmask", *path.relative_to(SOURCE).parts[:-1]], known
        )
        for path in FILES
    }
    assert not (found := circle(graph)), " <- ".join(found)


@pytest.mark.parametrize(
    ("of_a", "of_b", "is_circle"),
    [
        ("from unmask.data import b", "def f():\n    from unmask.data.a import g", True),
        ("from . import b", "import unmask.data.a", True),
        (
            "from .b import Spec",
            "class Spec:\n    def build(self):\n        import unmask.data.a",
            False,
        ),
        ("from .b import f", "if TYPE_CHECKING:\n    from unmask.data import a", False),
        ("from unmask.data.b import f", "import torch", False),
    ],
)
def test_the_search_for_circles_itself(of_a, of_b, is_circle):
    known = {"unmask.data", "unmask.data.a", "unmask.data.b"}
    files = {"unmask.data.a": of_a, "unmask.data.b": of_b}
    graph = {
        name: modules_imported(ast.parse(text), ["unmask", "data"], known)
        for name, text in files.items()
    }
    assert bool(circle(graph)) is is_circle


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
