"""The documentation site: pages are reachable, formulas convert, quoted messages are the code's.

Cannot detect: a page that looks bad.
"""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "gencg").rglob("*.py"))
PARTS = ("mathml", "navigation", "percent", "record")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """Modules of docs/site by name."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "site"))
    return {name: importlib.import_module(name) for name in PARTS}


def test_every_page_is_in_one_section_of_the_navigation(site: dict[str, ModuleType]) -> None:
    navigation = site["navigation"]
    pages = {
        path.relative_to(ROOT).with_suffix("").as_posix()
        for pattern in navigation.PAGES
        for path in ROOT.glob(pattern)
    }
    patterns = [p for section in navigation.SECTIONS.values() for p in section]
    found = [page for pattern in patterns for page in navigation.matching(pattern, pages)]
    assert sorted(found) == sorted(pages - {"docs/index"})
    # What is not there yet is passed over, and a tree names pages from the top
    assert navigation.matching("no_such_page", pages) == []
    assert "\n/docs/choosing\n" in navigation.trees(pages)


def test_every_formula_of_a_docstring_is_mathml(site: dict[str, ModuleType]) -> None:
    mathml, n = site["mathml"].mathml, 0
    for tex, display in formulas():
        assert mathml(tex, display=display).startswith("<math"), tex
        n += 1
    assert n > 400
    with pytest.raises(site["mathml"].MathError, match="nosuch"):
        mathml(r"\nosuch{x}")


def formulas() -> list[tuple[str, bool]]:
    """Formulas of all docstrings, and whether each stands alone."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = (ast.get_docstring(node) or "") + "\n"
                found += [
                    (" ".join(tex.split()), False)
                    for tex in re.findall(r":math:`(.+?)`", text, re.S)
                ]
                blocks = re.findall(r"^( *)\.\. math:: *(.*\n(?:\1 +.*\n|\s*\n)*)", text, re.M)
                found += [(re.sub(r"\n\s+", "\n", tex), True) for _, tex in blocks]
    return found


def test_a_tutorial_becomes_a_page(site: dict[str, ModuleType]) -> None:
    script = '"""Doc."""\n\n# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\nx = 1\n# why\n'
    assert site["percent"].to_markdown(script) == (
        '```python\n"""Doc."""\n```\n\n# Title\n\nText.\n\n```python\nx = 1\n# why\n```'
    )


def test_a_page_is_recorded(site: dict[str, ModuleType], tmp_path: Path) -> None:
    page = "A\n```console\n$ echo $((6 * \\\n7))\nold\n$ pwd\n```\nB\n```bash\n$ x\n```\n"
    again = site["record"].record(page, tmp_path)
    assert again == (
        "A\n```console\n$ echo $((6 * \\\n7))\n42\n$ pwd\n~\n```\nB\n```bash\n$ x\n```\n"
    )
    with pytest.raises(RuntimeError, match="false ended with code 1"):
        site["record"].record("```console\n$ false\n```\n", tmp_path)


def test_messages_of_the_troubleshooting_page_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    quoted = re.findall(r"^```none\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    messages = [line for block in quoted for line in block.splitlines()]
    known = templates()
    assert len(messages) > 40
    for message in messages:
        assert any(message in template for template in known), message


def templates() -> set[str]:
    """Strings of the package with … for what is filled in, joined ones as one."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            text = template(node)
            if text is not None:
                found.add(re.sub("…+", "…", text))
    return found


def template(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[sd]", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) or "…" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return "".join(template(side) or "…" for side in (node.left, node.right))
    return None


def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path: Path) -> None:
    options = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "doctrees")]
    folders = ["-c", "docs/site", ".", str(tmp_path / "site")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, *folders],
        cwd=ROOT, env=os.environ | {"GENCG_COMPILE": "0"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = {path.name: path.read_text() for path in (tmp_path / "site").rglob("*.html")}
    assert len(pages) > 30
    for name, text in pages.items():
        # What a browser loads by itself; links to articles are for the reader
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"(.*?)\"", text)
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)], name
    assert "<math" in pages["2_objectives.html"]
    assert 'id="gencg.fit"' in pages["0_gencg.html"]
    index = (tmp_path / "site" / "searchindex.js").read_text()
    assert "committor" in index
    assert "docs/troubleshooting" in index
