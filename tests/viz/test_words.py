import pytest

from unmask.viz.words import last_part, one_line, percent


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat", "cat"),
        ("new\nline\tand  space", "new line and space"),
        ("\x1b[31mred", "\ufffd[31mred"),
        ("<script>", "<script>"),
        ("bytes \udcff", "bytes \ufffd"),
        ("exactly ten"[:10], "exactly te"),
        ("more than ten", "more than…"),
        (" \n", "(no name)"),
    ],
)
def test_names_become_one_printable_line(text, shown):
    assert one_line(text, 10 if len(text) < 14 and text[0] in "em" else 40) == shown


@pytest.mark.parametrize(
    ("path", "shown"),
    [("a/b.png", "a/b.png"), ("photos/2026/b.png", "…026/b.png"), ("", "(no name)"), ("a\nb", "a b")],
)
def test_a_path_keeps_its_end(path, shown):
    assert last_part(path, 10) == shown


def test_shares_are_not_rounded_to_none_or_all():
    shares = [0, 1e-9, 0.004, 0.005, 0.256, 0.994, 0.995, 0.99999, 1]
    assert [percent(s) for s in shares] == [
        "0 %", "<1 %", "<1 %", "<1 %", "26 %", "99 %", ">99 %", ">99 %", "100 %"
    ]  # fmt: skip
