"""The page of errors names each class of error that the package has, and no other."""

import ast
import re

from tools.check_tree import ROOT


def test_every_error_has_its_line():
    defined = {
        node.name
        for folder in ("gtsvj_reward", "integrations")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    }
    page = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+Error)`", page)) - {"ValueError"}
    assert named == defined
    assert len(defined) > 15
