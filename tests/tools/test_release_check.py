"""What the environments of a release's check are made of."""

import pytest

from tools.check_tree import ROOT
from tools.release_check import MODELS, constraints, name_of

PINNED = ["torch==2.13.0", 'diffusers==0.42.1 ; python_version >= "3.11"', "torchvision==1.0"]
WANTED = ["torch>=2.6", "diffusers>=0.33", "peft>=0.15", "transformers>=4.57.1", "numpy>=1.26"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constrained", PINNED),
        ("newest", ["torch==2.13.0"]),
        ("lowest", ["torch==2.13.0", "diffusers==0.33", "peft==0.15", "transformers==4.57.1"]),
    ],
)
def test_versions_of_an_environment(kind, expected):
    assert constraints(kind, PINNED, WANTED) == expected


def test_what_is_pinned_is_there():
    text = (ROOT / "constraints.txt").read_text()
    names = [name_of(line) for line in text.splitlines() if not line.startswith("#")]
    assert {"torch", *MODELS} <= {*names}
