"""What the README shows, works."""

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_first_example():
    names = {}
    exec(PROGRAMS[0], names)
    assert names["y"].shape == (1, 64, 112, 112)


def test_digits_are_learned(capsys):
    names = {}
    exec(PROGRAMS[1], names)
    assert names["accuracy"] >= 0.97
    assert "test accuracy" in capsys.readouterr().out


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (Path(__file__).parents[1] / link).exists(), link
