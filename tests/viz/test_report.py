import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from unmask.viz.report import Commands, Link, Table, report_html

EVIL = """<script>alert('1')</script> & "quoted" """


class Page(HTMLParser):
    """Checks that tags close, and keeps what a reader and a browser see."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def png():
    file = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(file, "PNG")
    return file.getvalue()


def test_every_string_is_shown_as_it_is():
    table = Table(EVIL + "5", [EVIL + "6"], [[EVIL + "7"]])
    page = Page(
        report_html(
            EVIL + "1", facts=[(EVIL + "2", EVIL + "3")], pictures=[(EVIL + "4", png())], tables=[table]
        )
    )
    assert not page.all("script")
    for place in "1234567":
        assert EVIL + place in page.text
    assert page.all("img")[0]["alt"] == EVIL + "4"


def test_links_name_files_beside_the_page():
    """A place is a file's, whatever stands in its name: never a scheme, never HTML."""
    links = [Link("one", Path("seed=0/report.html")), Link(EVIL, Path("javascript:x \udcff/<p>.html"))]
    page = Page(report_html("sweep", facts=[], pictures=[], links=links))
    assert [attrs["href"] for attrs in page.all("a")] == [
        "seed%3D0/report.html",
        "javascript%3Ax%20%FF/%3Cp%3E.html",
    ]
    assert EVIL in page.text
    assert not Page(report_html("run", facts=[], pictures=[])).all("a")


def test_a_line_never_ends_within_a_flag():
    command = "unmask pretrain my--folder --model.decoder-depth 4 (--no-flip)"
    page = report_html("run", facts=[("Command", command)], pictures=[])
    assert re.findall('<span class="flag">(.*?)</span>', page) == ["--model.decoder-depth", "--no-flip"]
    assert Page(page).text.count(command) == 1


def test_pictures_are_inside_with_captions():
    page = Page(report_html("run", facts=[], pictures=[("curves", png()), ("samples", b"\x89PNG2")]))
    first, second = page.all("img")
    assert base64.b64decode(first["src"].removeprefix("data:image/png;base64,")) == png()
    assert (first["alt"], second["alt"]) == ("curves", "samples")
    assert len(page.all("figcaption")) == 2


def test_facts_and_tables_keep_their_order():
    table = Table("timings", ["what", "seconds"], [["load", "1.5"], ["step", "0.2"]])
    page = Page(report_html("run", facts=[("data", "/x"), ("images", "9")], pictures=[], tables=[table]))
    body = page.text[page.text.rindex("}") + 1 :].split()
    assert body == ["run", "data/x", "images9", "timings", "whatseconds", "load1.5", "step0.2"]


def test_nothing_is_fetched_and_phones_and_dark_mode_are_served():
    html = report_html("run", facts=[("a", "b")], pictures=[("c", png())])
    page = Page(html)
    assert not re.search(r"https?:|//|url\(|@import", re.sub(r"base64,[^\"]*", "", html))
    assert not page.all("script")
    assert not page.all("link")
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert "color-scheme: light dark" in html
    assert "max-width: 100%" in html


def test_an_empty_report_is_a_page_with_a_title():
    page = Page(report_html("run", facts=[], pictures=[]))
    assert page.text.count("run") == 2
    assert not page.all("table")


def test_pictures_enlarge_without_a_script():
    html = report_html("run", facts=[], pictures=[("curves", png())])
    page = Page(html)
    assert [attrs["type"] for attrs in page.all("input")] == ["checkbox"]
    assert "input:checked + span { position: fixed" in html
    assert len(page.all("img")) == 1, "the same picture, not another"


def test_opening_then_commands_then_numbers():
    table = Table("numbers", ["a"], [["1"]])
    commands = Commands("what next " + EVIL, [("look " + EVIL, "unmask check path " + EVIL)])
    html = report_html(
        "run", facts=[], pictures=[], summary=table, opening=[("chart", png())], commands=commands
    )
    page = Page(html)
    places = [html.index(part) for part in ("<figcaption>chart", "what next", "numbers</caption>")]
    assert places == sorted(places)
    assert not page.all("script")
    for words in ("what next", "look", "unmask check path"):
        assert f"{words} {EVIL}" in page.text
    assert len(page.all("code")) == 1
