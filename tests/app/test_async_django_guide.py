"""docs/async-django.md promises a page, a source and a test for each pattern."""

import ast
import re
from pathlib import Path

import pytest
from django.urls import resolve

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/async-django.md"


def rows():
    table = GUIDE.read_text().partition("## The patterns")[2].partition("\n## ")[0]
    for line in table.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            yield [cells[0], *(re.sub(r"^\[?`(.*?)`.*", r"\1", cell) for cell in cells[1:])]


PATTERNS = list(rows())[2:]


def functions(path):
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_the_guide_has_its_table():
    assert len(PATTERNS) > 50


@pytest.mark.parametrize(("pattern", "page", "source", "test"), PATTERNS)
def test_a_pattern_has_its_page_its_source_and_its_test(pattern, page, source, test):
    if not page.startswith(("/ws/", "make ", "manage.py ")):
        resolve(page.partition("?")[0])
    assert (ROOT / source).is_file()
    file, _, name = test.partition("::")
    assert name in functions(ROOT / file)


def test_links_of_the_guide_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", GUIDE.read_text())
    assert not [
        target
        for target in targets
        if not target.startswith("https://") and not (GUIDE.parent / target).exists()
    ]
