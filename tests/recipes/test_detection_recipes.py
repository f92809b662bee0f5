"""Recipes for detection: the published numbers, docstrings, and a step of each on tiny data."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import unmask
from tasks.test_detect import write_scenes
from unmask.config.detect import NewEncoder
from unmask.models.detector_spec import group_ends
from unmask.recipes.detect import DETECT
from unmask.runs.run import dry_run
from unmask.tasks.detect import Detect
from unmask.tasks.detections import DetectionFigures

pytestmark = pytest.mark.usefixtures("blank_charts")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """65 to train on."""
    return write_scenes(tmp_path_factory.mktemp("many") / "data", {"train": 65, "val": 3})


@pytest.mark.parametrize("name", DETECT)
def test_docstring_states_claim_cost_and_command(name):
    text = DETECT[name].__doc__ or ""
    for word in ("Claim", "Cost", rf"Command: .*unmask detect .*--recipe {name} "):
        assert re.search(rf"^    {word}", text, re.MULTILINE), word
    assert DETECT[name]().recipe == name


@pytest.mark.parametrize(
    ("name", "rate", "epochs", "layer_decay", "drop_path", "depth"),
    [
        ("detect-base", 8e-5, 100, 1.0, 0.1, 12),
        ("detect-large", 8e-5, 100, 1.0, 0.1, 24),
        ("detect-base-vitdet", 1e-4, 100, 0.7, 0.1, 12),
        ("detect-large-vitdet", 1e-4, 100, 0.8, 0.4, 24),
        ("detect-huge-vitdet", 1e-4, 75, 0.9, 0.5, 32),
    ],
)
def test_table_4(images, name, rate, epochs, layer_decay, drop_path, depth):
    recipe = DETECT[name]()
    assert recipe.data.size == ((896,) if "huge" in name else (1024,))
    data = replace(recipe.data, source=(str(images),), size=(112,))
    plan = dry_run(Detect(replace(recipe, scratch=True, data=data)))
    t, spec = plan.training, plan.model
    assert (t.lr, t.batch, t.weight_decay, t.betas) == (pytest.approx(rate), 64, 0.1, (0.9, 0.999))
    assert t.steps == -(-65 * epochs // 64)
    o = recipe.optim
    assert (o.layer_decay, recipe.detector.drop_path, recipe.data.scale) == (
        layer_decay,
        drop_path,
        (0.1, 2),
    )
    assert not t.compile
    assert spec.encoder.depth == depth
    is_global = [i for i, side in enumerate(spec.windows(depth)) if side is None]
    assert is_global == [end - 1 for end in group_ends(depth, 4)]
    kind = (spec.pyramid, spec.window, spec.relative_position, spec.head_norm)
    vitdet = name.endswith("vitdet")
    assert kind == (("simple", 14, "decomposed", "layer") if vitdet else ("fpn", 16, "shared", "batch"))


def test_what_is_decayed_and_which_layer_a_table_belongs_to(tmp_path):
    data = write_scenes(tmp_path / "data", {"train": 2, "val": 1})
    recipe = DETECT["detect-base-vitdet"]()
    task = Detect(
        replace(
            recipe,
            scratch=True,
            data=replace(recipe.data, source=(str(data),), size=(32,)),
            model=NewEncoder(patch=(16,), width=16, depth=4, heads=2),
            detector=replace(recipe.detector, channels=8, head_width=8),
            optim=replace(recipe.optim, batch=2, warmup_steps=1, steps=1),
        )
    )
    plan = dry_run(task)
    model, _ = task.model(plan, None)
    groups = task.param_groups(model, plan)
    found = {id(p): (g["weight_decay"], g["lr_scale"]) for g in groups for p in g["params"]}
    named = {name: found.get(id(p)) for name, p in model.named_parameters()}
    assert named["relative_position.rows.1"] == (0, pytest.approx(0.7**3))
    assert named["encoder.blocks.1.mlp.fc1.weight"] == (0.1, pytest.approx(0.7**3))
    assert named["encoder.patch_embed.proj.weight"] == (0.1, pytest.approx(0.7**5))
    assert named["heads.box_predictor.cls_score.weight"] == (0.1, 1)
    assert named["encoder.cls_token"] is None, "it is not trained"
    assert all(decay == 0 for n, (decay, _) in ((n, v) for n, v in named.items() if v) if "bias" in n)


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECT)
def test_a_step_of_each(tmp_path, monkeypatch, name):
    monkeypatch.setattr(DetectionFigures, "run", lambda self, model, processes: iter(()))
    data = write_scenes(tmp_path / "data", {"train": 4, "val": 2})
    recipe = DETECT[name]()
    short = replace(
        recipe,
        out=str(tmp_path / "run"),
        scratch=True,
        data=replace(recipe.data, source=(str(data),), size=(64,), workers=0),
        model=NewEncoder(patch=(16,), width=16, depth=4, heads=2),
        detector=replace(
            recipe.detector, channels=8, head_width=8, proposals=20, sampled_proposals=8, detections=5
        ),
        optim=replace(recipe.optim, batch=4, steps=1, warmup_steps=0),
        run=replace(recipe.run, precision="fp32"),
    )
    path = unmask.train("detect", short)
    assert unmask.load(path).proposals.head.cls_logits.bias.isfinite().all()
