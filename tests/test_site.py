"""The documentation site builds without a warning and without the network; its pages load nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from synthoma.cli.main import app

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")),
        reason="the extra `docs` is not installed",
    ),
]
# a proxy that nobody answers at: a request to anywhere would fail, and the build with it
NO_NETWORK = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: broken links and anchors, pages outside the navigation and all warnings are errors."""
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, **NO_NETWORK, "PYTHONPATH": str(ROOT / "src"), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return folder


LOADS = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}


class Page(HTMLParser):
    """What a page loads by itself, and where its links lead."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag in LOADS and values.get("rel") not in ("prev", "next"):
            self.loads.append(values.get(LOADS[tag], ""))
        if tag == "a":
            self.links.append(values.get("href", ""))


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for path in pages:
        foreign = [target for target in Page(path).loads if re.match(r"(\w+:)?//", target)]
        assert foreign == [], path.relative_to(site)
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text(encoding="utf-8")), path


def test_links_inside_the_site_lead_somewhere(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            target, _, anchor = link.partition("#")
            if re.match(r"(\w+:|//)", link):
                continue
            there = (path.parent / target).resolve() if target else path
            assert there.exists(), f"{path.relative_to(site)}: {link}"
            if anchor and there in pages:
                assert anchor in pages[there].anchors | {"__skip"}, f"{path.relative_to(site)}: {link}"


def test_every_command_and_public_name_is_in_the_reference(site: Path) -> None:
    import synthoma

    commands = (site / "reference/commands.html").read_text(encoding="utf-8")
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert [name for name in names if f"synthoma {name}" not in commands] == []
    assert "\\|" not in commands  # choices are parted by a plain sign
    python = Page(site / "reference/python.html").anchors
    told = {anchor.rpartition(".")[2] for anchor in python if anchor.startswith("synthoma.")}
    assert set(synthoma.__all__) <= told, set(synthoma.__all__) - told


def test_lists_are_lists_also_right_below_a_line_of_text(site: Path) -> None:
    for path in site.rglob("*.html"):
        shown = re.sub(r"<pre.*?</pre>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.search(r"\n(?:-|1\.) \w", shown), path


def test_fields_of_classes_and_parameters_of_functions_are_lists(site: Path) -> None:
    python = (site / "reference/python.html").read_text(encoding="utf-8")
    for kind, field in (("SynthesisRecipe", "lesions"), ("TumorPlan", "axes_mm"), ("synthesize", "copies")):
        _, _, after = python.partition(f'.{kind}" class="doc doc-heading')
        assert re.search(rf"<li>\s*(<p>)?<strong>[^<]*\b{field}\b[^<]*</strong>", after.split("<h3")[0]), kind


def test_recipes_are_shown_short_and_their_keys_can_be_opened(site: Path) -> None:
    shown = (site / "reference/recipes.html").read_text(encoding="utf-8")
    assert shown.count("<details") == shown.count("<h3") > 30
