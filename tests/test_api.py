"""The public functions: every option of a command is a keyword, under its name."""

import inspect
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import unmask
from unmask.cli.main import commands
from unmask.config.commands import FinetuneConfig, PretrainConfig
from unmask.config.fields import check
from unmask.config.keywords import keywords_of, with_settings

pytestmark = pytest.mark.usefixtures("blank_charts")


def test_every_command_has_its_function():
    for name in commands():
        if name != "list":
            assert inspect.getdoc(getattr(unmask, name)), name
    assert dir(unmask) == unmask.__all__
    assert unmask.__version__ == version("unmask")
    with pytest.raises(AttributeError, match="has no attribute 'pretrian'; did you mean pretrain"):
        unmask.pretrian  # noqa: B018  # the look-up itself


def test_a_setting_by_its_last_name(tiny, tmp_path):
    plan = unmask.pretrain(
        tiny.data.source[0], steps=3, warmup_steps=0, batch=4, data_size=32, mask_ratio=0.5, held_out=4,
        patch=8, workers=0, dry_run=True, out=tmp_path / "run",
    )  # fmt: skip
    assert (plan.training.steps, plan.training.batch) == (3, 4)
    assert plan.model.encoder.image_size == (32, 32)
    assert plan.model.encoder.patch_size == (8, 8)
    assert plan.model.mask.ratio == 0.5
    assert not (tmp_path / "run").exists()


def test_one_value_does_where_several_are_possible():
    changed = with_settings(PretrainConfig(), {"data_size": 96, "source": Path("a"), "mean": [0.5, 0.4]})
    assert (changed.data.size, changed.data.source, changed.data.mean) == ((96,), ("a",), (0.5, 0.4))
    assert with_settings(changed, {"mean": None}).data.mean is None


@pytest.mark.parametrize(
    ("keyword", "says"),
    [
        ("size", "'size' may be data_size or model_size: write one of them"),
        ("stesp", "no setting 'stesp'; did you mean .*steps"),
        ("optim_step", "no setting 'optim_step'; did you mean optim_steps"),
        ("optim.steps", "no setting 'optim.steps'; did you mean optim_steps"),
    ],
)
def test_what_is_none_or_not_alone_is_refused(keyword, says):
    """`size` is of images and of the model: it needs its section."""
    with pytest.raises(TypeError, match=says):
        with_settings(PretrainConfig(), {keyword: 1})


def test_a_top_level_name_is_no_sections():
    names = keywords_of(FinetuneConfig())
    assert (names["init"], names["out"], names["steps"]) == ("init", "out", "optim.steps")
    assert names["tune_blocks"] == names["head_tune_blocks"] == "head.tune_blocks"


def test_a_sweep_by_keyword(tiny):
    with pytest.raises(TypeError, match="no setting 'optim_base_lrr'; did you mean optim_base_lr"):
        unmask.pretrain(tiny, sweep={"optim.base_lrr": [1, 2]})
    with pytest.raises(ValueError, match="has a folder of its own below --out"):
        unmask.pretrain(tiny, sweep={"out": ["a", "b"]})
    assert not Path(tiny.out).exists()


@pytest.fixture
def swept(monkeypatch) -> list:
    """The configurations of the runs of the sweeps that a function begins."""
    found: list = []
    monkeypatch.setattr(
        "unmask.runs.train.run_sweep", lambda runs, base: found.extend(task.config for _, task in runs)
    )
    return found


def test_epochs_replace_a_recipes_steps(tiny, swept):
    """Steps win over epochs, and would let the keyword do nothing."""
    asked = with_settings(tiny, {"epochs": 7})
    assert (asked.optim.epochs, asked.optim.steps) == (7, None)
    assert asked.optim.warmup_steps == tiny.optim.warmup_steps
    assert with_settings(tiny, {"steps": 3, "epochs": 7}).optim.steps == 3
    unmask.pretrain("images", sweep={"epochs": [5, 6]})
    assert [(one.optim.epochs, one.optim.steps) for one in swept] == [(5, None), (6, None)]
    long, short = (unmask.plan("laptop", epochs=n).plan.training.steps for n in (2, 1))
    assert abs(long - 2 * short) <= 1


@pytest.mark.parametrize(
    "asked",
    [
        *({"seeds": seeds} for seeds in ([0, 0], 0, 2, [], "0,1")),
        *({"sweep": {"mask.strategy": values}} for values in ([], "grid", ["grid", "grid"], None)),
        {"sweep": {"data.size": [(32, 48), [32, 48]]}},
    ],
)
def test_several_runs_need_different_values(tiny, swept, asked):
    with pytest.raises(ValueError, match=r"need different values in a list, as in s.*\[.*, and got"):
        unmask.pretrain(tiny, **asked)
    assert not swept


def test_every_run_of_a_sweep_is_checked(tiny, swept):
    with pytest.raises(ValueError, match=r"--mask.strategy is 'foo': choose one of"):
        unmask.pretrain(tiny, sweep={"mask.strategy": ["grid", "foo"]})
    assert not swept


@pytest.mark.parametrize(
    ("command", "settings", "says"),
    [
        ("embed", {"pool": "foo"}, "--pool is 'foo': choose one of class, mean"),
        ("evaluate", {"split": "foo"}, "--split is 'foo': choose one of val, train, all"),
        ("pretrain", {"run_precision": "fp16"}, "--run.precision is 'fp16': choose one of auto, bf16"),
        ("segment", {"head_kind": "foo"}, "--head.kind is 'foo': choose one of upernet, linear"),
        ("pretrain", {"steps": 4.5}, "--optim.steps is 4.5 and must be a whole number or None"),
        ("pretrain", {"mask_ratio": "0.5"}, "--mask.ratio is '0.5' and must be a number"),
        ("pretrain", {"data_size": "32"}, r"--data.size is \('32',\) and must be whole numbers"),
        ("pretrain", {"flip": 1}, "--data.flip is 1 and must be True or False"),
        ("pretrain", {"betas": 0.9}, r"--optim.betas is \(0.9,\) and must be 2 numbers"),
        ("pretrain", {"seed": True}, "--run.seed is True and must be a whole number"),
    ],
)
def test_a_value_of_another_type_is_refused(command, settings, says):
    with pytest.raises(ValueError, match=says):
        getattr(unmask, command)("images", **settings)


def test_whole_numbers_do_where_numbers_do(tiny):
    asked = with_settings(tiny, {"mask_ratio": 0, "epochs": 2, "mean": [0, 0.5, 1], "clip": None})
    check(asked)
    assert asked.data.mean == (0, 0.5, 1)


def test_a_task_that_is_none_is_refused():
    with pytest.raises(ValueError, match="there is no task foo: choose one of pretrain, "):
        unmask.train("foo", "images")


def test_functions_are_found_without_torch_being_imported():
    script = "import sys, unmask; dir(unmask), unmask.__version__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_package_is_typed_and_whole():
    """py.typed goes with the package, and nothing of it is ignored by git, which hatch asks."""
    root = Path(__file__).parents[1]
    package = root / "src" / "unmask"
    assert (package / "py.typed").exists()
    modules = [str(path.relative_to(root)) for path in package.rglob("*.py")]
    asked = ["git", "check-ignore", "--no-index", *modules, "src/unmask/py.typed"]
    ignored = subprocess.run(asked, cwd=root, capture_output=True, text=True)
    if ignored.returncode == 128:
        pytest.skip("this is no checkout of git")
    assert ignored.stdout == ""
