"""The command as a user types it: what it prints, what it leaves behind, its exit codes."""

import contextlib
import csv
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from golden.flags import all_flags
from unmask.cli import main
from unmask.cli.main import commands, run
from unmask.config.migrate import config_record
from unmask.tasks import TASKS, find_recipe

pytestmark = pytest.mark.usefixtures("blank_charts")

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
SMALL = (
    "--data.size 16 24 --data.held-out 4 --data.workers 0 --model.patch 4 --model.width 16 "
    "--model.depth 2 --model.heads 2 --model.decoder-width 8 --model.decoder-depth 1 "
    "--model.decoder-heads 2 --optim.batch 6 --optim.warmup-steps 1"
).split()


def pretrain(*words: str) -> int:
    return run(["pretrain", *words, *SMALL, "--optim.steps", "4"])


@pytest.fixture(scope="module")
def with_a_run(photos, tmp_path_factory) -> Path:
    """A folder with a run in the usual place."""
    folder = tmp_path_factory.mktemp("here")
    with contextlib.chdir(folder):
        assert pretrain(str(photos), "--data.other", str(photos)) == 0
    return folder


@pytest.fixture
def finished(with_a_run, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(shutil.copytree(with_a_run, tmp_path, dirs_exist_ok=True))
    return tmp_path / "runs" / "pretrain-photos"


def test_a_run_leaves_what_the_design_names(finished):
    names = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    assert names >= {
        "config.json", "plan.json", "env.json", "metrics.jsonl", "metrics.csv", "train.log",
        "model.safetensors", "model.json", "report.html", "plots/curves.png",
        "samples/reconstruction-00000000.png", "samples/reconstruction-00000004.png",
        "samples/reconstruction-ratios-00000004.png", "samples/other-data-00000004.png",
        "checkpoints/step-00000004/state.json",
    }  # fmt: skip
    assert not any(".unfinished" in name for name in names)
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 7, "the first strips are left out"
    assert "http" not in page.replace("http-equiv", "")
    assert json.loads((finished / "config.json").read_text())["recipe"] == "laptop"
    rows = list(csv.DictReader((finished / "metrics.csv").read_text().splitlines()))
    assert float(rows[-1]["held_out/ratio"]) > 0
    log = (finished / "train.log").read_text()
    assert "20 training images and 4 held out" in log
    assert "next: unmask reconstruct IMAGES --init runs/pretrain-photos" in log


def test_again_there_is_nothing_to_do(finished, photos, capsys):
    assert pretrain(str(photos), "--data.other", str(photos)) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_reconstruct_and_export(finished, photos, tmp_path, capsys):
    words = [
        "reconstruct",
        str(photos),
        "--init",
        str(finished),
        "--out",
        "pictures",
        "--mask-ratio",
        "0.5",
    ]
    assert run(words) == 0
    for name in ("reconstruction.png", "reconstruction-ratios.png"):
        with Image.open(tmp_path / "pictures" / name) as picture:
            assert picture.size[0] > 300
    assert run(["export", str(finished), "--to", "official", "--out", "model.pth"]) == 0
    assert "differ from the source's by 0 at most" in capsys.readouterr().out


def test_init_starts_from_weights(finished, photos, capsys):
    assert pretrain(str(photos), "--init", str(finished), "--out", "second") == 0
    assert "encoder and decoder start from" in capsys.readouterr().out


def test_check(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = shutil.copytree(photos, tmp_path / "messy")
    shutil.copy(copy / "near" / "picture-00.png", copy / "again.png")
    (copy / "broken.jpg").write_bytes(b"nothing")
    (copy / "dangling.jpg").symlink_to("nowhere.jpg")
    assert run(["check", str(copy), "--data.size", "32", "--device", "cpu"]) == 0
    output = capsys.readouterr().out
    assert "13 PNG" in output
    assert "broken.jpg" in output
    assert "dangling.jpg" in output
    assert "the same content" in output
    assert re.search("next: unmask pretrain .*--optim.batch 21", output), "a batch takes what there is"
    assert re.search(r"time +about [\d.]+ (seconds|minutes|hours) here: \d+ steps of 21 images", output)
    assert re.search(r"memory +about [\d.]+ [MG]iB", output)
    with Image.open("runs/check-messy/samples.png") as picture:
        assert picture.width > 300


def test_check_of_another_recipe(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["check", str(photos), "--recipe", "small-images"]) == 0
    output = capsys.readouterr().out
    assert "small-images: as asked" in output
    epochs = find_recipe("pretrain", "small-images").optim.epochs
    assert f"{epochs:g} steps of 18 images" in output, "a batch takes what there is"


def test_list(capsys):
    assert run(["list"]) == 0
    output = capsys.readouterr().out
    assert all(word in output for word in ("vit-huge-1600", "laptop", "elpv", "1280"))


def test_plan(capsys):
    words = "plan --recipe vit-huge-800 --devices 64xa100 --mask.tokens-in-encoder --optim.epochs 100"
    assert run(words.split()) == 0
    *card, line = capsys.readouterr().out.splitlines()
    record = json.loads(line)
    assert (record["devices"], record["device"]["memory_gib"]) == (64, 40)
    assert record["parameters"] == 657_075_276
    assert record["steps"] == -(-100 * 1_281_167 // 4096)
    assert any("657.1 million" in text for text in card)
    assert any("42.4" in text and "34%" in text for text in card), "the paper's Table 2"


def test_plan_of_a_recipe_in_steps(capsys):
    assert run("plan --recipe laptop --optim.epochs 10 --images 3200".split()) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == 10 * 3200 // 32


def test_bench(capsys):
    words = "bench step --model quickstart --batch 2 --rounds 1 --threads 1 --device cpu"
    assert run(words.split()) == 0
    *card, line = capsys.readouterr().out.splitlines()
    record = json.loads(line)
    assert (record["bench"], record["model"], record["batch"]) == ("step", "quickstart", 2)
    assert 0 < record["share_of_limit"] < 2
    assert any("share of the limit" in text for text in card)


def test_dry_run_and_print_config(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert pretrain(str(photos), "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["training"]["steps"] == 4
    assert plan["facts"]["training_images"] == 20
    assert pretrain(str(photos), "--dry-run", "--json", "--seeds", "0,1") == 0
    assert list(json.loads(capsys.readouterr().out)) == ["seed=0", "seed=1"]
    assert pretrain(str(photos), "--json") == 2
    assert "write unmask pretrain DATA --dry-run --json" in capsys.readouterr().err
    assert pretrain(str(photos), "--dry-run") == 0
    *_, steps, took, memory, disk = capsys.readouterr().out.splitlines()
    assert steps.startswith("4 steps of 6 images (1.2 epochs) in 1 process")
    assert re.match(r"time: about [\d.]+ \w+ on this machine for the steps, [\d.e-]+ s each, ", took)
    assert "for weights, gradients and optimizer" in memory
    assert disk.startswith("disk: up to ")
    assert pretrain(str(photos), "--dry-run", "--seeds", "0,1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[5]) == ("seed=0:", "seed=1:")
    assert re.fullmatch(r"2 runs, about \d+ seconds? in all", lines[-1])
    assert pretrain(str(photos), "--print-config") == 0
    config = json.loads(capsys.readouterr().out)
    assert config["data"]["source"] == [str(photos)]
    assert not list(tmp_path.iterdir())
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert run(["pretrain", "--recipe", "config.json", "--print-config"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == config["model"]


def test_a_printed_config_with_a_name_mistyped_is_refused(tmp_path, capsys):
    assert run(["pretrain", "--print-config"]) == 0
    (tmp_path / "my.json").write_text(capsys.readouterr().out.replace('"ratio"', '"ratoi"'))
    assert run(["pretrain", "--recipe", str(tmp_path / "my.json"), "--print-config"]) == 2
    assert "my.json: Mask has no ratoi: correct or remove" in capsys.readouterr().err


def edited(command: str, section: str, name: str, value: object) -> str:
    config = config_record(find_recipe(command, TASKS[command].recipe), command)
    config[section][name] = value
    return json.dumps(config)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            edited("pretrain", "model", "size", "gigantic"),
            "my.json: model.size is 'gigantic': choose one of",
        ),
        (
            edited("pretrain", "optim", "batch", "many"),
            "my.json: optim.batch is 'many' and must be a whole",
        ),
        (edited("finetune", "optim", "batch", 8), "is of unmask finetune, and this is unmask pretrain"),
        ("[1]", "holds no names and values"),
        ('{"data": 5}', "wants names and values, not 5"),
        ('{"format": "new"}', "has format new and this unmask reads up to"),
    ],
)
def test_what_a_recipe_file_may_not_hold(text, sentence, tmp_path, capsys):
    (tmp_path / "my.json").write_text(text)
    assert run(["pretrain", "--recipe", str(tmp_path / "my.json"), "--print-config"]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_recipe_from_a_module(photos, capsys):
    words = ["pretrain", str(photos), "--recipe", "unmask.recipes.pretrain:laptop", "--print-config"]
    assert run(words) == 0
    assert json.loads(capsys.readouterr().out)["optim"]["steps"] == 5000


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("pretrian", 2, "there is no command pretrian: did you mean pretrain?"),
        ("pretrain {photos} --recipe nothing", 2, "there is no recipe nothing"),
        ("pretrain {photos} --recipe", 2, "needs a value"),
        ("pretrain {photos} --recipe no.module:function", 2, "cannot be called (No module named"),
        ("pretrain {photos} --data.size 97 --optim.batch 4 --out x", 2, "does not divide"),
        ("pretrain {photos} --fit --mask.ratio 1.0 --optim.batch 4 --out x", 2, "keeps 0 of 144"),
        ("pretrain {photos} --fit --mask.ratio 0.0 --optim.batch 4 --out x", 2, "keeps 144 of 144"),
        ("pretrain {photos} --out x", 2, "32 is more than the 18 training images"),
        ("pretrain {photos} --data.held-out 24 --out x", 3, "leaves no training image"),
        ("pretrain {photos} --data.mean 0.5 --optim.batch 4 --out x", 2, "1 values for 3 channels"),
        ("pretrain {empty} --out x", 3, "no images in"),
        ("pretrain nowhere", 3, "there is no folder"),
        ("pretrain", 3, "no images were named"),
        ("reconstruct {photos}", 2, "write --init RUN"),
        ("reconstruct {photos} --init {empty}", 4, "holds no model.safetensors"),
        ("reconstruct {photos} --count 0", 2, "--count is 0 and must be 1 or more"),
        ("check {empty}/nothing", 3, "there is no folder"),
        ("export", 2, "export takes one run"),
        ("export nowhere", 4, "no file or run directory"),
        ("list everything", 2, "takes no arguments"),
        ("plan --devices 8xabacus", 2, "there is no device abacus: choose one of"),
        ("plan --recipe nothing", 2, "there is no recipe nothing"),
        ("bench", 2, "bench takes one name"),
        ("bench warp", 2, "there is no benchmark warp"),
        ("bench step --model enormous", 2, "there is no model enormous"),
        ("bench step --rounds 0", 2, "--rounds is 0 and must be 1 or more"),
    ],
)
def test_mistakes_get_a_sentence(words, code, sentence, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert run(words.format(photos=photos, empty=tmp_path / "empty").split()) == code
    error = capsys.readouterr().err
    assert error.startswith("unmask: ")
    assert sentence in error
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["empty"], "a failed start leaves nothing"


RECIPE = """
from dataclasses import replace
from unmask.recipes.pretrain import laptop

def mine():
    return replace(laptop(), optim=replace(laptop().optim, batch=3))

def broken():
    return 1 / 0
"""


def test_a_command_that_is_not_divided_refuses_torchrun(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for command in ("knn", "predict", "embed", "check", "export"):
        assert run([command, "images"]) == 2
        assert "torchrun started 2: leave torchrun out" in capsys.readouterr().err
    assert run(["evaluate", "images"]) == 2
    assert "needs a model" in capsys.readouterr().err


def test_a_recipe_in_the_current_folder(tmp_path, monkeypatch, capsys):
    """The installed command does not have it on Python's path, as `python -m unmask` has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    before = list(sys.path)
    (tmp_path / "recipes_of_mine.py").write_text(RECIPE)
    assert run(["pretrain", "--recipe", "recipes_of_mine:mine", "--print-config"]) == 0
    assert json.loads(capsys.readouterr().out)["optim"]["batch"] == 3
    for name, reason in (("broken", "ZeroDivisionError"), ("nothing", "has no attribute 'nothing'")):
        assert run(["pretrain", "--recipe", f"recipes_of_mine:{name}", "--print-config"]) == 2
        assert reason in capsys.readouterr().err
    assert sys.path == before


def test_the_installed_command_finds_it(tmp_path):
    script = Path(sys.executable).with_name("unmask")
    if not script.exists():
        pytest.skip("the package is not installed as a command here")
    (tmp_path / "my_recipes.py").write_text(RECIPE)
    words = [str(script), "pretrain", "--recipe", "my_recipes:mine", "--print-config"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["optim"]["batch"] == 3


@pytest.mark.parametrize("out", ["missing/deep", "there"])
@pytest.mark.parametrize("more", [[], ["--seeds", "0,1"]])
def test_a_failed_start_leaves_what_was_there(out, more, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / ".DS_Store").touch()
    words = ["pretrain", str(photos), "--out", out, "--init", "nowhere", *more]
    assert run(words) == 4
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {
        "there",
        "there/.DS_Store",
    }


def test_data_stand_anywhere_among_the_flags(photos, capsys):
    """Before, between and after them, also behind a flag of several numbers."""
    flags = (
        "--data.size 16 24 --recipe laptop --data.no-flip --data.mean -0.5 1 2e-1 --optim.betas 0.9 0.95"
        " --data.rescale None --out=there"
    ).split()
    found = []
    for place in (0, 3, 5, 6, 10, 13, 15, 16):
        words = [*flags[:place], str(photos), "more photos", *flags[place:]]
        assert run(["pretrain", *words, "--print-config"]) == 0, words
        found.append(json.loads(capsys.readouterr().out))
    assert all(config == found[0] for config in found)
    assert found[0]["data"]["source"] == [str(photos), "more photos"]
    assert (found[0]["data"]["size"], found[0]["data"]["mean"]) == ([16, 24], [-0.5, 1, 0.2])


def test_words_behind_a_flag_of_several_texts_are_its(photos, capsys):
    words = ["finetune", str(photos), "--data.val", "a", "b", "--init", "run", "--print-config"]
    assert run(words) == 0
    config = json.loads(capsys.readouterr().out)
    assert (config["data"]["source"], config["data"]["val"]) == ([str(photos)], ["a", "b"])


def test_unknown_flag_gets_a_suggestion(photos, capsys):
    with pytest.raises(SystemExit) as stop:
        run(["pretrain", str(photos), "--mask.ration", "0.5"])
    assert stop.value.code == 2
    assert "--mask.ratio" in capsys.readouterr().err


def test_unreadable_folder(tmp_path, monkeypatch, capsys):
    import os

    (tmp_path / "closed").mkdir()

    def refused(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refused)
    assert run(["pretrain", str(tmp_path / "closed")]) == 3
    assert "cannot be read (Permission denied): change its permissions" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*commands(), ""])
def test_help(name, capsys):
    try:
        code = run([name, "--help"] if name else ["--help"])
    except SystemExit as stop:
        code = stop.code
    assert code == 0
    assert "unmask" in capsys.readouterr().out


def test_help_is_quick():
    """Seconds of processor time of the whole process, best of three: no torch is imported."""
    command = [sys.executable, "-m", "unmask", "--help"]
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.5


def test_flags_are_the_golden_list():
    """A new flag is a decision: write the list anew with `python tests/golden/flags.py`."""
    golden = Path(__file__).parents[1] / "golden" / "flags.txt"
    assert all_flags() == golden.read_text().splitlines()


@pytest.mark.parametrize(
    ("theirs", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_idle_threads_sleep_unless_the_user_says_how_they_wait(theirs, spins):
    """Set before torch is imported, which reads it once."""
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    script = (
        "import os, sys, unmask.cli.main as m\n"
        "assert 'torch' not in sys.modules\n"
        "try: m.main(['--version'])\n"
        "except SystemExit: print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(
        command, env=environment | theirs, capture_output=True, text=True, check=True
    )
    assert result.stdout.split()[-1] == str(spins)


@pytest.mark.parametrize("words", ["--help", "pretrain --help", "list"])
def test_a_reader_that_has_enough_gets_no_complaint(words, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    command = f"{shlex.quote(sys.executable)} -m unmask {words} | true"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert not done.stderr


def test_a_command_without_memory_for_its_libraries_ends_in_a_sentence(tmp_path):
    """A quarter of what torch's own libraries take."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    done = subprocess.run(
        ["bash", "-c", f"ulimit -v 300000; exec {shlex.quote(sys.executable)} -m unmask check ."],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr.startswith("unmask: unmask check needs more memory than there is: ")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", commands())
def test_a_command_that_is_out_of_memory_ends_in_a_sentence(name, monkeypatch, capsys):
    """With flags that it has."""
    with contextlib.suppress(SystemExit):
        run([name, "--help"])
    known = capsys.readouterr().out
    errors = [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
    for error in [*errors, RuntimeError("shapes differ")]:

        def fail(words, error=error):
            raise error

        monkeypatch.setattr(main, "_function", lambda *place, fail=fail: fail)
        with pytest.raises(type(error)):
            run([name, "images", "--debug"])
        if error not in errors:
            with pytest.raises(RuntimeError, match="shapes differ"):
                run([name, "images"])
            return
        with monkeypatch.context() as patch:
            if isinstance(error, MemoryError):  # then torch may not fit either
                patch.setitem(sys.modules, "unmask.engine.machine", None)
            assert run([name, "images"]) == main.FAILED
        said = capsys.readouterr().err
        assert said.startswith(f"unmask: unmask {name} needs more memory than there is: ")
        assert all(flag in known for flag in re.findall(r"--[a-z.-]+", said))
