"""Runs and exports that an earlier version wrote resume, load, evaluate and export to the same numbers.

`earlier/README.md` says what is there and how it was made. The tests use the command and `unmask.load`
alone, so that they hold whatever becomes of what lies below. Nothing here is written anew when the code
changes: a file format that changes needs a migration, and files of the new format a folder of their own.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import unmask
from unmask.cli.main import run

pytestmark = pytest.mark.usefixtures("blank_charts")

EARLIER = Path(__file__).with_name("earlier")
TOLERANCE = 1e-5
"""Of losses, relative, and of a trained model's outputs, absolute, on other processors or versions."""

EXPORTS = {
    "pretrain.pth": "autoencoder",
    "pretrain.safetensors": "autoencoder",
    "pretrain-hf": "autoencoder",
    "pretrain-timm": "encoder",
    "finetune.pth": "classifier",
    "finetune.safetensors": "classifier",
    "finetune-timm": "classifier",
    "probe-hf": "probe",
}
"""By name in `earlier/exports`: what they hold, as `outputs.safetensors` names it."""


def write_images(folder: Path) -> None:
    """Three classes of eight pictures; integers alone, so that they are the same on every machine."""
    y, x = np.mgrid[0:20, 0:24]
    for k, name in enumerate("abc"):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            waves = [(3 * k + 2 + c) * x + (5 * i + 3 * c) * y % 13 + 11 * i for c in range(3)]
            pixels = np.stack([abs(w % 64 - 32) * (4 + 3 * (k == c)) for c, w in enumerate(waves)], -1)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")


def processor() -> str:
    """What sums depend on."""
    found = torch.cpu.get_capabilities().items()
    features = sorted(f"{k}={v}" for k, v in found if v and not k.startswith("num_"))
    kernels = torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, {kernels} kernels on {' '.join(features)}"


def outputs(path: Path) -> dict[str, torch.Tensor]:
    """What a model makes of two fixed images: a loss and a prediction, tokens or logits."""
    model = unmask.load(path)
    images = (torch.arange(2 * 3 * 16 * 16) * 7919 % 1009 / 504.5 - 1).reshape(2, 3, 16, 16)
    with torch.inference_mode():
        if not hasattr(model, "decoder"):
            return {"output": model(images)}
        noise = (torch.arange(2 * 16) * 37 % 101 / 101).reshape(2, 16)
        loss, prediction, *_ = model(images, noise=noise)
        return {"loss": loss, "output": prediction}


def numbers() -> dict:
    """What cannot be read off the runs themselves."""
    return json.loads((EARLIER / "numbers.json").read_text())


def recorded(kind: str) -> dict[str, torch.Tensor]:
    tensors = load_file(EARLIER / "outputs.safetensors")
    return {name.split(".")[1]: value for name, value in tensors.items() if name.split(".")[0] == kind}


def assert_outputs(path: Path, kind: str) -> None:
    found, wanted = outputs(path), recorded(kind)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=TOLERANCE, atol=TOLERANCE)


def losses(path: Path) -> list[float]:
    records = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if record["step"]]


def unmask_command(*words: str) -> None:
    assert run([str(word) for word in words]) == 0


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A copy of `earlier` with its images: paths in its files are relative to it."""
    folder = tmp_path / "earlier"
    shutil.copytree(EARLIER, folder)
    write_images(folder / "images")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_a_stopped_run_resumes_to_the_same_end(here, capsys, command):
    """The images lie elsewhere by now, which a resumed run may be told."""
    Path("images").rename("moved")
    stopped = Path(f"{command}-stopped")
    assert not (stopped / "model.safetensors").exists()
    before = losses(stopped)
    unmask_command(command, "moved", "--recipe", stopped / "config.json", "--out", stopped)
    assert len(before) == 5
    assert losses(stopped)[:5] == before, "what had been measured stays"
    found, wanted = (load_file(folder / "model.safetensors") for folder in (stopped, Path(command)))
    assert found.keys() == wanted.keys()
    if processor() == numbers()["processor"]:
        assert losses(stopped) == losses(Path(command))
        assert all(found[name].equal(value) for name, value in wanted.items())
    else:
        assert losses(stopped) == pytest.approx(losses(Path(command)), rel=TOLERANCE)
        assert_outputs(stopped, {"pretrain": "autoencoder", "finetune": "classifier"}[command])


@pytest.mark.parametrize("command", ["pretrain", "finetune", "probe"])
def test_a_finished_run_has_nothing_to_do(here, capsys, command):
    before = {path: path.read_bytes() for path in Path(command).rglob("*") if path.is_file()}
    unmask_command(command, "images", "--recipe", f"{command}/config.json", "--out", command)
    assert "nothing to do" in capsys.readouterr().out
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize("command", ["finetune", "probe"])
def test_evaluation_gives_the_same_scores(here, command):
    unmask_command("evaluate", "images", "--init", command, "--out", "scores", "--data.workers", "0")
    found = json.loads(Path("scores/scores.json").read_text())
    wanted = numbers()["scores"][command]
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=TOLERANCE)


@pytest.mark.parametrize(
    ("command", "kind"),
    [("pretrain", "autoencoder"), ("finetune", "classifier"), ("probe", "probe")],
)
def test_a_finished_run_loads(command, kind):
    assert_outputs(EARLIER / command, kind)


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_loads(name):
    assert_outputs(EARLIER / "exports" / name, EXPORTS[name])


@pytest.mark.parametrize("name", EXPORTS)
def test_a_finished_run_is_exported(here, name):
    command, layout = name.replace(".pth", "-official").replace(".", "-").split("-")
    unmask_command("export", command, "--to", layout, "--out", here / "again" / name)
    assert_outputs(here / "again" / name, EXPORTS[name])


@pytest.mark.parametrize("command", ["pretrain", "finetune", "probe"])
def test_a_config_serves_as_recipe(here, capsys, command):
    """Every setting that is still there has its earlier value, and all that the run was given are."""
    path = Path(command) / "config.json"
    unmask_command(command, "--recipe", path, "--print-config")
    printed, earlier = flat(json.loads(capsys.readouterr().out)), flat(json.loads(path.read_text()))
    kept = {name for name in printed if name in earlier} - {"recipe", "out", "format"}
    assert {name: printed[name] for name in kept} == {name: earlier[name] for name in kept}
    assert set(numbers()["given"][command]) <= kept


def flat(nested: dict, prefix: str = "") -> dict:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    pairs = {}
    for name, value in nested.items():
        more = flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        pairs.update(more)
    return pairs
