"""What the documents say is so: commands run, paths and tests exist."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

import unmask
from unmask.cli.main import COMMANDS, run

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
    ours = [words for words in lines if words and words[0] != "make"]
    names = [next(w for w in words if w.endswith("unmask")) for words in ours]
    return [words[words.index(name) + 1 :] for words, name in zip(ours, names, strict=True)]


@pytest.fixture
def place(photos, tmp_path, monkeypatch):
    """A folder in which the paths of the README exist."""
    for name in ("path/to/images", "path/to/others", "imagenet/train"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(photos)
    shutil.copytree(photos, tmp_path / "path/to/labelled")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    return tmp_path


@pytest.mark.slow
def test_every_command_of_the_readme_runs(place):
    """Pre-training is made tiny, by flags behind the README's own."""
    assert (
        run(["pretrain", str(place / "path/to/images"), "--out", "runs/pretrain-images", *TINY.split()])
        == 0
    )
    seen = set()
    for i, words in enumerate(commands()):
        seen.add(words[0])
        extra = [*TINY.split(), "--out", f"runs/{i}"] if words[0] == "pretrain" else []
        if words[0] in ("finetune", "probe", "scratch"):
            extra = "--optim.steps 2 --optim.warmup-steps 1 --optim.batch 4 --data.workers 0".split()
        if words[0] == "scratch":
            extra += "--data.size 16 24 --model.patch 4".split()
        if words[0] == "bench":
            extra = "--model quickstart --batch 2 --rounds 1".split()
        assert run([*words, *extra]) == 0, shlex.join(words)
    assert seen == set(COMMANDS) - {"quickstart"}
    assert re.search(
        r"^quickstart:.*\n\t.*unmask quickstart$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )


def test_the_python_of_the_readme_runs(place, monkeypatch):
    from dataclasses import replace

    from unmask import api

    original = api.pretrain_recipe

    def tiny(name):
        config = original(name)
        model = replace(config.model, patch=(4,), width=16, depth=1, heads=2, decoder_width=8)
        optim = replace(config.optim, batch=4, steps=2, warmup_steps=1)
        data = replace(config.data, size=(16,), workers=0)
        return replace(config, model=model, optim=optim, data=data)

    monkeypatch.setattr(api, "pretrain_recipe", tiny)
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
    for file in re.findall(r"`((?:core|data|engine|config|tasks|cli|recipes)/(?!test_)\w+\.py)", text):
        assert (ROOT / "src" / "unmask" / file).exists(), file


def test_reliability_names_tests_that_exist():
    named = re.findall(r"`(\w+/\w+\.py)::(\w+)`", (ROOT / "docs" / "reliability.md").read_text())
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), test


def test_the_tree_of_the_readme_is_the_tree():
    (source,) = (block for block in blocks("") if block.startswith("src/unmask/"))
    named = set(re.findall(r"(\w+)/", source)) - {"src", "unmask"}
    rooms = {path.parent.name for path in (ROOT / "src" / "unmask").glob("*/__init__.py")}
    assert named == rooms
