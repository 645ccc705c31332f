"""The site that `make docs` has built: nothing comes from elsewhere, every link leads somewhere."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import bertjax

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build" / "site"
# Tags of which the browser loads what they name, without being asked.
LOADED = {
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("source", "src"),
    ("iframe", "src"),
    ("embed", "src"),
    ("object", "data"),
    ("use", "href"),
    ("video", "src"),
}

pytestmark = pytest.mark.skipif(
    not os.environ.get("REQUIRE_SITE"), reason="make docs builds the site and checks it"
)


class Page(HTMLParser):
    """What a page names: `loaded` by the browser, `linked` for a reader, and its own `anchors`."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.linked, self.anchors, self.refreshed = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if (tag, name) in LOADED:
                self.loaded.append(value)
            elif (tag, name) == ("a", "href"):
                self.linked.append(value)
            elif name == "id":
                self.anchors.add(value)
        if tag == "meta" and dict(attrs).get("http-equiv") == "refresh":
            self.refreshed.append(dict(attrs)["content"].partition("url=")[2])


@pytest.fixture(scope="module")
def pages():
    found = {path: Page(path.read_text(encoding="utf-8")) for path in SITE.rglob("*.html")}
    assert len(found) > 20
    return found


def is_elsewhere(address):
    return bool(re.match(r"\s*(\w+:)?//", address))


def test_no_page_loads_anything_from_elsewhere(pages):
    named = [(page, address) for page in pages for address in pages[page].loaded]
    assert len(named) > 100
    assert [(page.name, address) for page, address in named if is_elsewhere(address)] == []


def test_no_style_or_script_loads_anything_from_elsewhere():
    loads = re.compile(r"""(?:url\(|@import|fetch\(|import\(|\.src ?=)\s*["'`]?\s*(?:https?:)?//""")
    files = [*SITE.rglob("*.css"), *SITE.rglob("*.js"), *SITE.rglob("*.html")]
    assert {file.suffix for file in files} == {".css", ".js", ".html"}
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    assert [file.name for file, text in texts.items() if loads.search(text)] == []


def test_every_link_within_the_site_leads_somewhere(pages):
    wrong, followed = [], 0
    for page, named in pages.items():
        for address in [*named.loaded, *named.linked, *named.refreshed]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            followed += 1
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchor = unquote(parts.fragment)
            there = target.is_file() and (not anchor or anchor in pages[target].anchors)
            if not there:
                wrong.append(f"{page.relative_to(SITE)}: {address}")
    assert followed > 1000
    assert wrong == []


def test_every_public_name_has_its_place(pages):
    anchors = pages[SITE / "docs" / "api" / "python.html"].anchors
    fields = {field.name for field in dataclasses.fields(bertjax.Model)}
    methods = [name for name in vars(bertjax.Model) if name[0] != "_" and name not in fields]
    names = {f"bertjax.{name}" for name in bertjax.__all__ if name[0] != "_"}
    names |= {f"bertjax.Model.{name}" for name in methods}
    assert len(names) > 30
    assert names - anchors == set()


def test_formulas_and_outputs_of_notebooks_are_there():
    page = (SITE / "docs/notebooks/read_the_model.html").read_text(encoding="utf-8")
    assert page.count("<math") > 5
    assert page.count("numpy and the model agree") > 10
    assert page.count("<img") > 1


@pytest.mark.parametrize(
    ("address", "fails"), [("page.md#part", False), ("none.md", True), ("page.md#none", True)]
)
def test_a_link_that_leads_nowhere_fails_the_build(address, fails, tmp_path):
    docs = tmp_path / "docs"
    shutil.copytree(ROOT / "docs" / "_templates", docs / "_templates")
    shutil.copy(ROOT / "docs" / "conf.py", docs)
    (docs / "index.md").write_text(f"# Index\n\n## Read\n\n- [Page](page.md)\n- [It]({address})\n")
    (docs / "page.md").write_text("# Page\n\n## Part\n")
    options = ["--quiet", "--fail-on-warning", "--conf-dir", "docs", ".", "site"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode != 0) == fails, done.stderr
    assert ("none" in done.stderr) == fails
