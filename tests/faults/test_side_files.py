"""Fault 7 and the files beside the weights: a damaged line is set aside, and nothing else changes."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.data.bad_images import BadImageLog
from unmask.data.decode.pictures import BadImage
from unmask.engine.console import RunConsole
from unmask.engine.metrics import DAMAGED, JSONL, MetricsLog, parse_metrics, read_metrics
from unmask.engine.run_directory import RunDirectory, environment_of, opened
from unmask.errors import CheckpointError, DataError
from unmask.runs.pages import _when

pytestmark = pytest.mark.usefixtures("blank_charts")

RECORDS = [{"step": 10 * n, "epoch": n / 2, "loss": 1 / (n + 1), "val": None} for n in range(5)]
LINES = [json.dumps(record).encode() for record in RECORDS]
JUNK = [
    b"", b"\xff\xfe", b"null", b"3", b"[]", b"{}", b'{"step": null}', b'{"step": "20"}', b'{"step": -1}',
    b'{"step": 25, "loss": "1"}', b'{"step": 25, "loss": [1]}', b'{"step": 25, "loss": NaN}',
    b'{"step": 25, "loss": 1e999}', b'{"step": 25', b"[" * 100_000, b'{"step": true}', b"\0" * 10,
    b'{"step": ' + b"9" * 5000 + b"}", b'{"step": 25, "loss": ' + b"9" * 400 + b"}",
]  # fmt: skip


def log_of(tmp_path, lines: list[bytes], last_step: int = 40) -> tuple[MetricsLog, list[str]]:
    (tmp_path / JSONL).write_bytes(b"".join(line + b"\n" for line in lines))
    printed: list[str] = []
    return MetricsLog(RunDirectory(tmp_path), last_step, printed.append), printed


@pytest.mark.parametrize("at", [0, 3, 5])
@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
def test_07_a_damaged_line_drops_only_itself(tmp_path, junk, at):
    """A step of 25 would be in its place before the last two."""
    log, printed = log_of(tmp_path, [*LINES[:at], junk, *LINES[at:]])
    assert log.records == RECORDS
    assert (tmp_path / JSONL).read_bytes().splitlines() == LINES
    assert (tmp_path / DAMAGED).read_bytes() == junk + b"\n"
    assert "1 line of metrics.jsonl" in printed[0]
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 6
    assert log_of(tmp_path, LINES)[1] == []


@pytest.mark.parametrize("step", [0, 10, 30, 60])
def test_07_a_step_out_of_its_order_drops_only_itself(tmp_path, step):
    """The record of step 20 with another step."""
    lines = [*LINES[:2], json.dumps({**RECORDS[2], "step": step}).encode(), *LINES[3:]]
    log, printed = log_of(tmp_path, lines)
    assert [r["step"] for r in log.records] == [0, 10, 30, 40]
    assert printed


def test_07_a_line_that_a_kill_cut_short_is_not_worth_a_word(tmp_path):
    (tmp_path / JSONL).write_bytes(b"\n".join(LINES) + b'\n{"step": 5')
    printed: list[str] = []
    assert MetricsLog(RunDirectory(tmp_path), 40, printed.append).records == RECORDS
    assert not printed


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=60), max_size=6), st.randoms())
def test_07_any_bytes_between_the_records(junk, order):
    """Every line is a record or set aside, and no record is lost."""
    lines = [*LINES]
    for line in junk:
        lines.insert(order.randint(0, len(lines)), line.replace(b"\n", b""))
    records, damaged = parse_metrics(b"".join(line + b"\n" for line in lines))
    assert records == RECORDS
    assert len(records) + len(damaged) == len(lines)


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=60) | st.sampled_from(JUNK + LINES), max_size=8))
def test_07_any_bytes_as_metrics(tmp_path_factory, lines):
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    (run.path / JSONL).write_bytes(b"\n".join(lines))
    assert all(record in RECORDS for record in read_metrics(run))
    assert MetricsLog(run, 30).records == read_metrics(run)


def bad_images(folder) -> BadImageLog:
    return BadImageLog(folder / "bad_images.jsonl", images=100, max_share=0.5)


NO_ENTRIES = [
    b"\xff", b"null", b"3", b"[]", b"{}", b'{"path": 3}', b'{"path": "a", "reason": 1}', b"{",
    b"[" * 10**5,
]  # fmt: skip


@pytest.mark.parametrize("junk", NO_ENTRIES, ids=range(9))
def test_17_junk_in_the_list_of_bad_images(tmp_path, junk):
    file = tmp_path / "bad_images.jsonl"
    file.write_bytes(
        b'{"path": "a.png", "reason": "x"}\n' + junk + b'\n{"path": "b.png", "reason": "y"}\n'
    )
    assert bad_images(tmp_path).known == {"a.png", "b.png"}
    assert (tmp_path / "bad_images.damaged.jsonl").read_bytes() == junk + b"\n"
    bad_images(tmp_path).add([BadImage("c.png", "z")])
    assert bad_images(tmp_path).known == {"a.png", "b.png", "c.png"}
    assert (tmp_path / "bad_images.damaged.jsonl").read_bytes() == junk + b"\n"


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=60) | st.sampled_from(NO_ENTRIES), max_size=6).map(b"\n".join))
def test_17_any_bytes_as_list_of_bad_images(tmp_path_factory, content):
    """Every line is an entry or set aside, and none is lost."""
    folder = tmp_path_factory.mktemp("run")
    file, damaged = folder / "bad_images.jsonl", folder / "bad_images.damaged.jsonl"
    file.write_bytes(content)
    bad_images(folder).add([BadImage("c.png", "z")])
    assert "c.png" in bad_images(folder).known
    listed = {*file.read_bytes().split(b"\n")} - {b""}
    assert all(isinstance(json.loads(line)["path"], str) for line in listed)
    aside = damaged.read_bytes().split(b"\n") if damaged.exists() else [b""]
    assert {*content.split(b"\n")} <= {*listed, *aside}


@pytest.mark.timeout(20)
def test_17_a_pipe_as_list_of_bad_images(tmp_path):
    os.mkfifo(tmp_path / "bad_images.jsonl")
    with pytest.raises(DataError, match="no ordinary file"):
        bad_images(tmp_path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "damaged",
    [
        '{"started": "junk"}', '{"started": 5}', '{"started": "2026-01-01T00:00:00"}', '{"parts": "x"}',
        '{"parts": null}', '{"parts": [1]}', '{"parts": -1}', '{"parts": 1e999}', '{"command": 3}',
        '{"parts": ' + 4300 * "9" + "}",  # Python writes no number that is longer
        '{"command": [3]}', '{"torch": {}}', "[]", "3", "{", "", "\0", "[" * 50_000, None,
    ],
    ids=str,
)  # fmt: skip
def test_32_a_damaged_record_of_the_machine_is_passed_over_with_a_note(
    tmp_path, tiny, monkeypatch, damaged
):
    """None: a pipe."""
    with opened(tmp_path / "run", tiny, "pretrain") as run:
        assert run.notes == ()
    monkeypatch.setattr(RunDirectory, "has_begun", True)
    path = run.path / "env.json"
    path.unlink()
    if damaged is None:
        os.mkfifo(path)
    else:
        path.write_text(damaged)
    _when(environment_of(run)[0])  # as the report does when the run ends
    with opened(run.path, tiny, "pretrain") as run:
        assert "env.json" in run.notes[0]
        assert run.differs == ()
    known = json.loads(path.read_text())
    assert known["parts"] == 2
    assert "started" not in known
    assert environment_of(run) == (known, ())


@pytest.mark.timeout(20)
def test_32_a_pipe_as_log_is_a_sentence(tmp_path):
    os.mkfifo(tmp_path / "train.log")
    console = RunConsole(speaks=True)
    console.say("first")
    with pytest.raises(
        CheckpointError, match=r"train\.log cannot be written \(it is no ordinary file\)"
    ):
        console.log_to(tmp_path / "train.log")
