"""`unmask check` accounts for every file, in words and as JSON, and recommends nothing that fails."""

import io
import json
import os
import re
import shlex
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import unmask
from conftest import photograph
from data.makers import write_dicom
from tests_support import resolved, write_texture
from unmask.cli.main import main, run
from unmask.config.advice import advised_patch
from unmask.config.commands import PretrainConfig, PretrainData
from unmask.config.settings import Optim
from unmask.cost.predict import predict
from unmask.cost.reading import ReadingTime
from unmask.data.sources.find import find_images
from unmask.tasks import find_recipe
from unmask.use.advise import advised_steps, measured_here
from unmask.use.check_report import BadShare

pytestmark = pytest.mark.usefixtures("blank_charts")

SIZE = ["--data.size", "16", "--data.workers", "0"]
SMALL = "--model.width 16 --model.depth 1 --model.heads 1 --model.decoder-width 8"
BROKEN = ("broken.jpg", "below/cut.png", "below/empty.jpg")
STEPS = "--model.decoder-depth 1 --model.decoder-heads 1 --optim.steps 2 --optim.warmup-steps 1"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def messy(place):
    """Twelve photographs, one image of one colour, three that are broken, and what is ignored."""
    folder = place / "messy"
    (folder / "below").mkdir(parents=True)
    for i in range(12):
        photograph(i).save(folder / ("below" if i % 2 else ".") / f"{i:02d}.jpg")
    (folder / "11.jfif").write_bytes((folder / "below/11.jpg").read_bytes())
    Image.new("RGB", (20, 20), (3, 200, 9)).save(folder / "Weiß.png")
    (folder / "below/empty.jpg").touch()
    (folder / "broken.jpg").write_bytes(b"nothing")
    (folder / "below/cut.png").write_bytes((folder / "Weiß.png").read_bytes()[:60])
    for name in ("a.heic", "B.HEIC", "c.gif", "d.svg", "below/e.dng", "README", ".hidden.png"):
        (folder / name).write_text("no image")
    (folder / "loop.png").symlink_to("loop.png")
    return folder


def checked(capsys, *words: str) -> str:
    assert run(["check", *words, "--device", "cpu", *SIZE]) == 0
    return capsys.readouterr().out


def test_every_file_is_accounted_for(messy, capsys):
    output = re.sub(r"\s+", " ", checked(capsys, "messy"))
    assert "images 17, of which" in output
    assert "2 .heic, 1 without a suffix, 1 .dng, 1 .gif, 1 .svg: no image of a kind" in output
    assert "ignored 1 .png: a link to nothing or to itself" in output
    assert "ignored 1 .png: hidden" in output
    assert "unreadable 3 (" in output
    assert "note: 1 image of one colour, kept for training: 'messy/Weiß.png'" in output
    assert "broken.jpg" in output
    files = sum(len(files) for _, _, files in os.walk(messy))
    record = json.loads(checked(capsys, "messy", "--json"))
    assert record["images"] + sum(record["ignored"].values()) == files


def test_one_json_object(messy, capsys, place):
    output = checked(capsys, "messy", "--json")
    output.encode("ascii")
    record = json.loads(output)
    assert list(record) == [
        *("images", "channels", "dtype", "mean", "std", "ignored", "unreadable", "notes")
    ]
    assert (record["images"], record["channels"], record["dtype"]) == (17, 3, "uint8")
    assert len(record["mean"]) == len(record["std"]) == 3
    assert all(0.3 < value < 0.7 for value in record["mean"]), "on the scale 0 to 1"
    assert record["ignored"] == {"": 1, ".dng": 1, ".gif": 1, ".heic": 2, ".png": 2, ".svg": 1}
    assert set(record["unreadable"]) == {f"messy/{name}" for name in BROKEN}
    assert any("Weiß.png" in note for note in record["notes"])
    assert any("--data.max-bad-share" in note for note in record["notes"])
    assert not (place / "runs").exists(), "nothing is written"


def test_the_scale_is_the_one_that_training_uses(place, capsys):
    (place / "deep").mkdir()
    for i in range(6):
        values = np.random.default_rng(i).integers(0, 65_536, (16, 16)).astype(np.uint16)
        Image.fromarray(values).save(place / f"deep/{i}.png")
        np.save(place / f"deep/{i}.npy", values)
    record = json.loads(checked(capsys, "deep", "--json"))
    assert record["dtype"] == "float32"
    assert record["mean"] == pytest.approx([0.5], abs=0.02)
    assert record["std"] == pytest.approx([12**-0.5], abs=0.02)
    plan = json.loads(pretrained(capsys, "deep", "--optim.batch", "2", "--dry-run", "--json"))
    assert plan["image"]["mean"] == pytest.approx(record["mean"], abs=0.02), "of the training images"


def pretrained(capsys, *words: str) -> str:
    capsys.readouterr()
    assert run(["pretrain", *words, *SIZE, *SMALL.split(), *STEPS.split()]) == 0
    return capsys.readouterr().out


def refuse_all(folder):
    (folder / "a.png").write_bytes(b"nothing")


def refuse_units(folder):
    pixels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    write_dicom(folder / "a.dcm", pixels, RescaleSlope=1, RescaleIntercept=0)
    write_dicom(folder / "b.dcm", pixels)


def refuse_channels(folder):
    for bands in (4, 5):
        np.save(folder / f"{bands}.npy", np.zeros((bands, 16, 16), np.float32))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (refuse_all, "can be read"),
        (refuse_units, "--data.rescale"),
        (refuse_channels, "different numbers of channels"),
        (lambda folder: None, "no images in"),
    ],
)
def test_refused_data(make, sentence, place, capsys):
    (place / "data").mkdir()
    make(place / "data")
    assert run(["check", "data", "--json", *SIZE]) == 3
    output, error = capsys.readouterr()
    assert output == ""
    assert sentence in error
    assert error.count("\n") == 1


def test_a_terminal_of_ascii(messy, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # otherwise the command sets another variable
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with pytest.raises(SystemExit) as end:
        main(["check", "messy", *SIZE])
    sys.stdout.flush()
    assert end.value.code == 0
    assert rb"Wei\xdf.png" in written.getvalue()


def test_what_is_recommended_does_not_fail(messy, capsys):
    """One of thirteen training images is bad, and a run stops at one in twenty."""
    output = checked(capsys, "messy")
    assert "note: about 8 % of the training images cannot be read" in output
    *_, line = re.findall("^next: unmask (.*)$", output, re.MULTILINE)
    words = shlex.split(line)
    assert words[-2] == "--data.max-bad-share"
    assert words[-1] == "0.08"
    capsys.readouterr()
    without = [word for word in words if word not in words[-2:]]
    assert run([*without, *SMALL.split(), *STEPS.split(), "--out", "stops"]) == 3
    assert "more than --data.max-bad-share" in capsys.readouterr().err
    assert run([*words, *SMALL.split(), *STEPS.split()]) == 0


def test_flags_of_the_check_are_recommended_as_they_are_typed(place, capsys):
    (place / "scans").mkdir()
    for i in range(4):
        values = np.random.default_rng(i).integers(0, 4000, (16, 16)).astype(np.uint16)
        write_dicom(place / f"scans/{i}.dcm", values, RescaleSlope=1, RescaleIntercept=0)
    output = checked(capsys, "scans", "--data.rescale", "False")
    line = re.findall("^next: unmask (.*)$", output, re.MULTILINE)[-1]
    assert run([*shlex.split(line), "--dry-run", "--json"]) == 0


def test_no_run_is_recommended_that_has_nothing_to_measure(place, capsys):
    """The one image that would be held out is broken."""
    (place / "four").mkdir()
    for i in range(4):
        photograph(i).save(place / f"four/{i}.png")
    _, held_out = find_images(("four",)).split(1)
    with open(held_out.paths[0], "wb") as file:
        file.write(b"nothing")
    output = checked(capsys, "four")
    assert "note: none of the images that a run would hold out can be read" in output
    assert "next: unmask pretrain" not in output


def test_shares_of_bad_images():
    share = BadShare(training=0.07, held_out=0, allowed=0.05)
    assert (share.stops_a_run, share.enough) == (True, "0.08")
    assert BadShare(training=1, held_out=0, allowed=0.05).enough == "1"
    assert not BadShare(training=0.05, held_out=0, allowed=0.05).stops_a_run


# What is advised.


@pytest.mark.parametrize(
    ("sigma", "half", "flags", "expect"),
    [
        (2, 3.3, ["--model.patch", "4", "--mask.ratio", "0.5"], "structure that spans patches"),
        (6, 10, [], "structure that spans patches"),
        (0.3, 0.6, ["--model.patch", "4", "--mask.ratio", "0.5"], "fine texture"),
    ],
)
def test_patches_and_masks_fit_the_textures(sigma, half, flags, expect, place, capsys):
    write_texture(place / "texture", sigma)
    assert run(["check", "texture", "--device", "cpu", "--data.workers", "0"]) == 0
    output = capsys.readouterr().out
    words = re.sub(r"\s+", " ", output)
    found = re.search(r"in (\d+) images of 64 x 64 pixels .* one half within ([\d.]+) pixels", words)
    assert found
    assert (found[1], float(found[2])) == ("16", pytest.approx(half, rel=0.15))
    assert f"expect {expect}" in words
    line = shlex.split(re.findall("^next: unmask (.*)$", output, re.MULTILINE)[-1])
    assert line[line.index("--data.size") :][:2] == ["--data.size", "64"], "images are not enlarged"
    chosen = line[line.index("64") + 1 :]
    assert chosen[: len(flags)] == flags
    assert set(chosen[len(flags) :: 2]) <= {"--optim.steps"}
    assert run([*line, "--dry-run", "--json"]) == 0


def test_a_recipe_that_is_asked_for_stays_as_it_is(place, capsys):
    write_texture(place / "texture", 6)
    output = checked(capsys, "texture", "--recipe", "small-images")
    assert "one half within" not in output
    assert not re.search("--(mask.ratio|model.patch|optim.steps)", output)


def test_speed_is_measured_where_that_is_short():
    small = replace(find_recipe("pretrain", "laptop"), data=PretrainData(size=(32,), workers=0))
    predicted = predict(small, devices="cpu", images=100)
    measured = measured_here(predicted)
    assert measured.seconds > 0
    assert measured.utilisation != predicted.utilisation
    large = predict(PretrainConfig(optim=Optim(batch=32)), devices="1xh100", images=100)
    assert measured_here(large) is large, "it is not here"


def test_half_an_hour_of_steps():
    """Of 32 images at 20 ms for two processes, of which each is decoded anew: 0.32 s."""
    steps = advised_steps(reading(20, 2, images=10_000))
    assert steps == 5600
    assert advised_steps(reading(20, 2, images=100)) == 6200, "at most 2000 epochs"
    assert advised_steps(reading(100, 2, images=10_000)) == 1000, "it would take longer: 1.6 s a step"


# What is slower.


def reading(decode_ms: float, kept_ms: float, *, images: int) -> ReadingTime:
    """Of a run on a GPU, with so many images of half a megabyte."""
    config = PretrainConfig(
        optim=Optim(steps=1000, warmup_steps=1, batch=32), data=PretrainData(workers=2)
    )
    prediction = predict(config, devices="1xh100", images=images, decode_ms=decode_ms)
    plan = resolved(config, images=images, cores=8)
    return ReadingTime(prediction=replace(prediction, plan=plan), kept_ms=kept_ms)


def test_time_of_reading():
    once, often = reading(20, 2, images=1000), reading(20, 2, images=10_000)
    assert once.seconds == pytest.approx((1000 * 20 + 31_000 * 2) / 1000 / 2)
    assert often.seconds == pytest.approx(32_000 * 20 / 1000 / 2), "too many to be kept in memory"


def test_what_is_slower_and_what_helps():
    slow = reading(20, 2, images=10_000).verdict
    assert slow.startswith("data loading, 10 ms a sample in 2 processes against ")
    assert "--data.cache-gib 5.3 " in slow, "10,000 images of 562,500 bytes"
    assert "--data.workers 8 in place of 2" in slow
    kept = reading(20, 2, images=1000).verdict
    assert kept.startswith("data loading, 1 ms a sample")
    assert "cache-gib" not in kept
    fast = reading(0.001, 0.001, images=1000).verdict
    assert fast.startswith("computation, ")
    assert "--data.size" in fast


def test_on_a_gpu_small_grey_images_get_patches_that_can_be_normalised(place, monkeypatch):
    """The recipe for small images has normalised pixels, and fine texture asked for patches of one."""
    assert advised_patch((16, 16), 0.6, 4) == 2
    write_texture(place / "texture", 0.3)
    monkeypatch.setattr("unmask.use.check.suggest_recipe", lambda *_, **__: ("small-images", "a GPU"))
    found = unmask.check("texture", data_size=(16,), data_channels=1, data_workers=0, device="cpu")
    assert run([*shlex.split(found.commands[0])[1:], "--dry-run"]) == 0
