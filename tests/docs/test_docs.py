"""What the documents say is so: commands run, paths and tests exist."""

import ast
import itertools
import json
import re
import shlex
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unmask
from conftest import photograph
from faults.table import rows
from unmask.cli.main import commands as all_commands
from unmask.cli.main import run
from unmask.recipes import pretrain
from unmask.tasks import TASKS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
README = (ROOT / "README.md").read_text()
TINY = (
    "--data.size 16 24 --data.workers 0 --data.held-out 4 --model.patch 4 --model.width 16 "
    "--model.depth 1 --model.heads 2 --model.decoder-width 8 --model.decoder-depth 1 "
    "--model.decoder-heads 2 --optim.batch 4 --optim.steps 2 --optim.warmup-steps 1"
)


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    return [text for kind, text in fenced if kind == language]


def commands() -> list[list[str]]:
    lines = [shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines()]
    others = (["make"], ["pip"], ["unmask", "quickstart"])
    ours = [words for words in lines if words and words[:1] not in others and words[:2] not in others]
    names = [next(w for w in words if w.endswith("unmask")) for words in ours]
    return [words[words.index(name) + 1 :] for words, name in zip(ours, names, strict=True)]


def write_objects(folder: Path) -> None:
    """Images with COCO's annotations."""
    (folder / "images").mkdir(parents=True)
    box = {"category_id": 1, "bbox": [4, 5, 20, 12], "area": 240, "iscrowd": 0}
    annotations = [{**box, "id": i + 1, "image_id": i} for i in range(8)]
    images = [{"id": i, "file_name": f"{i}.png", "height": 30, "width": 44} for i in range(8)]
    for i in range(8):
        photograph(i).save(folder / "images" / f"{i}.png")
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "tree"}]}
    (folder / "annotations.json").write_text(json.dumps(content))


def write_scenes(folder: Path) -> None:
    """Images with label maps of two classes."""
    for place in ("images", "labels"):
        (folder / place).mkdir(parents=True)
    labels = np.uint8(np.arange(44)[None] // 22 + np.zeros((30, 1)))
    for i in range(8):
        photograph(i).save(folder / "images" / f"{i}.png")
        Image.fromarray(labels).save(folder / "labels" / f"{i}.png")


@pytest.fixture
def place(photos, tmp_path, monkeypatch):
    """A folder in which the paths of the README exist."""
    for name in ("path/to/images", "path/to/others", "imagenet/train"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(photos)
    shutil.copytree(photos, tmp_path / "path/to/labelled")
    write_objects(tmp_path / "path/to/objects")
    write_scenes(tmp_path / "path/to/scenes")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    return tmp_path


DETECTOR = (
    "--data.size 32 48 --detector.window 1 --detector.global-blocks 1 --detector.channels 8 "
    "--detector.head-width 16 --detector.sampled-anchors 16 --detector.sampled-proposals 12 "
    "--detector.proposals 20 --detector.detections 5"
)
EXTRA = {
    "pretrain": TINY,
    "tokenizer": (
        "--out runs/tokenizer-images --data.size 32 48 --data.held-out 4 --model.width 16 "
        "--model.vocabulary 8"
    ),
    "scratch": "--data.size 16 24 --model.patch 4",
    "detect": DETECTOR,
    "segment": "--head.width 8",
    "bench": "--model small-step --batch 2 --rounds 1",
    "ablate": "--dry-run",
}
SHORT = "--optim.steps 2 --optim.warmup-steps 1 --optim.batch 4 --data.workers 0"


@pytest.mark.slow
def test_every_command_of_the_readme_runs(place):
    """Training is made tiny, by flags behind the README's own."""
    first = [
        "pretrain",
        "path/to/images",
        "--out",
        "runs/pretrain-images",
        *SHORT.split(),
        *TINY.split(),
    ]
    assert run(first) == 0
    seen = set()
    for i, words in enumerate(commands()):
        seen.add(words[0])
        extra = EXTRA.get(words[0], "").split()
        if words[0] in TASKS:
            extra += SHORT.split()
        if words[0] == "pretrain":
            extra += ["--out", f"runs/{i}"]
        assert run([*words, *extra]) == 0, shlex.join(words)
    assert seen == set(all_commands()) - {"quickstart"}
    assert re.search(
        r"^quickstart:.*\n\t.*unmask quickstart$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )


def test_the_python_of_the_readme_runs(place, monkeypatch):
    def tiny():
        c = pretrain.laptop()
        model = replace(c.model, patch=(4,), width=16, depth=1, heads=2, decoder_width=8)
        optim = replace(c.optim, batch=4, steps=2, warmup_steps=1)
        data = replace(c.data, size=(16,), workers=0)
        return replace(c, fit=(), model=model, optim=optim, data=data)

    monkeypatch.setitem(pretrain.PRETRAIN, "laptop", tiny)
    (code,) = blocks("python")
    names: dict = {"unmask": unmask}
    exec(code, names)
    assert [path.exists() for path in names["pictures"]] == [True, True]
    assert names["model"].encoder.grid == (4, 4)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_exist(document):
    text = document.read_text()
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", text):
        assert (document.parent / target).exists(), target
    for file in re.findall(
        r"`((?:core|data|engine|config|tasks|cli|recipes|runs|models|use|cost)/(?!test_)\w+\.py)", text
    ):
        assert (ROOT / "src" / "unmask" / file).exists(), file


def test_reliability_names_tests_that_exist():
    named = re.findall(r"`(\w+/\w+\.py)::(\w+)`", (ROOT / "docs" / "reliability.md").read_text())
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), test


def test_every_row_of_reliability_is_run_by_make_faults():
    """One test each: `make faults` would pass over a row of another form."""
    table = (ROOT / "docs" / "reliability.md").read_text()
    assert len(rows()) == len(re.findall(r"^\| \d", table, re.MULTILINE))


def test_reliability_names_guards_that_exist():
    table = (ROOT / "docs" / "reliability.md").read_text()
    cells = re.findall(r"^\| \d.*::\w+` \| (.*)\|$", table, re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    assert len(named) > 20
    modules = set(map(module_of, named))
    assert not named - {f"{module}.{name}" for module in modules for name in defined(module)}


def module_of(name: str) -> str:
    """The longest beginning of a dotted name below `unmask` that is a module."""
    beginnings = itertools.accumulate(name.split("."), "{}.{}".format)
    return max((b for b in beginnings if module_file(b).exists()), key=len)


def module_file(module: str) -> Path:
    return ROOT / "src" / "unmask" / (module.replace(".", "/") + ".py")


@cache
def defined(module: str) -> set[str]:
    """Names of a module's functions, classes, methods and constants."""
    names = set()
    for node in ast.parse(module_file(module).read_text()).body:
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{m.name}" for m in node.body if isinstance(m, ast.FunctionDef)}
    return names


def test_the_tree_of_the_readme_is_the_tree():
    (source,) = (block for block in blocks("") if block.startswith("src/unmask/"))
    named = set(re.findall(r"(\w+)/", source)) - {"src", "unmask"}
    rooms = {path.parent.name for path in (ROOT / "src" / "unmask").glob("*/__init__.py")}
    assert named == rooms
