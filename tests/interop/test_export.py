"""unmask export: where it writes, what it compares, and the model card."""

import errno
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests_support import changed, mae_spec, random_weights
from unmask import api
from unmask.cli.main import run as unmask
from unmask.errors import CheckpointError
from unmask.interop import export
from unmask.interop.card import model_card
from unmask.interop.export import DEFAULT_NAMES, default_path, export_weights
from unmask.interop.weights import read_weights, write_model

SMALL = mae_spec(
    image_size=(16, 16), patch_size=(4, 4), channels=3, width=24, depth=1, heads=2,
    decoder_width=8, decoder_depth=1, decoder_heads=2,
)  # fmt: skip
LINES = {
    "official": 'model.load_state_dict(torch.load("{}", weights_only=True)["model"])',
    "safetensors": 'unmask.load("{}")',
    "timm": 'timm.create_model("local-dir:{}", pretrained=True)',
    "hf": 'transformers.ViTMAEForPreTraining.from_pretrained("{}")',
}


@pytest.fixture
def run(tmp_path) -> Path:
    """What matters of a run directory."""
    folder = tmp_path / "run"
    folder.mkdir()
    weights = random_weights(SMALL, recipe="laptop", data="cells", steps=70, licence_note="CC BY 4.0")
    write_model(folder, weights.state, weights.description)
    (folder / "config.json").write_text(json.dumps({"recipe": "laptop"}))
    ratio = {"held_out/error": 0.2, "held_out/harmonic_error": 0.4, "held_out/ratio": 0.5}
    records = [{"step": 35, **ratio, "held_out/ratio": 0.9}, {"step": 70, **ratio}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return folder


@pytest.mark.parametrize("layout", DEFAULT_NAMES)
def test_command(run, layout, capsys):
    for _ in range(2):  # an earlier export may be replaced
        assert unmask(["export", str(run), "--to", layout]) == 0
    path = run / DEFAULT_NAMES[layout]
    output = capsys.readouterr().out
    assert f"wrote {path}; read back, its outputs differ from the source's by" in output
    assert f"load it with: {LINES[layout].format(path)}" in output
    card = (path / "README.md" if path.is_dir() else path.with_suffix(".md")).read_text()
    assert "recipe: laptop" in card
    assert "images: cells" in card
    assert "steps: 70" in card
    assert "held-out error vs harmonic fill 0.500" in card
    assert LINES[layout].format(path.name) in card
    assert str(run.parent) not in card
    assert card.startswith("---\nlibrary_name") == path.is_dir()
    assert read_weights(path).description.recipe == "laptop"


def test_card():
    weights = random_weights(changed(SMALL, mask_unit=2, loss_on="all"))
    d = replace(weights.description, notes=("the classification head was left out",))
    card = model_card(d, layout="hf", name="cells", line="load()")
    for wanted in (
        "license: unknown", "library_name: transformers", "# cells", "```python\nload()\n```",
        "16 x 16 pixels (height x width) and 3 channels", "mean 0.400 0.410 0.420",
        "recipe: not recorded", "measured: nothing is recorded",
        "75% of the patches, in squares of 2 x 2; target normalized-pixels; loss on all patches",
        "draws patches normalised by their own mean",
        "Transformers masks single patches, and this was trained with squares of 2 x 2.",
        "Transformers computes the loss on masked patches only.",
        "- The classification head was left out.",
    ):  # fmt: skip
        assert wanted in card, wanted
    encoder = model_card(
        replace(weights.encoder_only().description, licence_note="CC BY-NC 4.0", data="cells"),
        layout="timm",
        name="cells",
        line="load()",
    )
    assert "license: other" in encoder
    assert "CC BY-NC 4.0." in encoder
    assert "has seen cells and nothing else" in encoder
    assert "ecoder has" not in encoder.split("The encoder is")[0]
    assert "draws patches" not in encoder
    assert not model_card(d, layout="official", name="cells", line="load()").startswith("---")


@pytest.mark.parametrize("layout", ["timm", "hf"])
def test_a_library_that_is_not_installed(tmp_path, monkeypatch, layout):
    monkeypatch.setitem(sys.modules, {"timm": "timm", "hf": "transformers"}[layout], None)
    with pytest.raises(ValueError, match=rf"pip install 'unmask\[{layout}\]'"):
        export_weights(random_weights(SMALL), layout, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("layout", DEFAULT_NAMES)
def test_other_outputs_are_an_error(tmp_path, monkeypatch, layout):
    """As if the other library had changed under us."""
    other = random_weights(SMALL)
    other.state["encoder.norm.weight"] *= 1.01
    writer = export.WRITERS[layout]
    monkeypatch.setitem(export.WRITERS, layout, lambda weights, path: writer(other, path))
    with pytest.raises(CheckpointError, match="does not give the source's outputs"):
        export_weights(random_weights(SMALL), layout, tmp_path / DEFAULT_NAMES[layout])


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("--to timm --out {run}", 4, "something else than an earlier export"),
        ("--to hf --out {run}/model.json", 4, "something else than an earlier export"),
        ("--to safetensors --out {run}/model.safetensors", 4, "belongs to a run"),
        ("--to safetensors --out x.pth", 2, "does not end in .safetensors"),
        ("--to official --out x", 2, "does not end in .pth"),
    ],
)
def test_nothing_else_is_overwritten(run, words, code, sentence, capsys):
    before = {path: path.read_bytes() for path in run.iterdir()}
    assert unmask(["export", str(run), *words.format(run=run).split()]) == code
    assert sentence in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in run.iterdir()}


def test_unknown_layout(run):
    with pytest.raises(ValueError, match="no layout 'onnx': choose one of official, safetensors"):
        api.export(run, to="onnx")


@pytest.mark.parametrize("layout", DEFAULT_NAMES)
def test_names_that_are_not_utf_8(tmp_path, layout):
    """They come back as they were; the model card shows a stand-in."""
    weights = random_weights(SMALL, data="gr\udcfcn")
    path = export_weights(weights, layout, default_path(layout, tmp_path)).path
    assert read_weights(path).description.data == "gr\udcfcn"
    card = path / "README.md" if path.is_dir() else path.with_suffix(".md")
    assert "images: gr?n" in card.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["README.md", "config.json"])
def test_a_disk_that_gets_full_leaves_the_earlier_export_whole(run, tmp_path, monkeypatch, name):
    weights, path, write = read_weights(run), tmp_path / "hf", Path.write_text
    export_weights(weights, "hf", path)
    before = (path / name).read_text()

    def full(self, text, **how):
        if name not in self.name:
            return write(self, text, **how)
        write(self, text[: len(text) // 2], **how)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CheckpointError, match="make room"):
        export_weights(weights, "hf", path)
    assert (path / name).read_text() == before
    assert not [each for each in path.iterdir() if each.name.startswith(".")]
