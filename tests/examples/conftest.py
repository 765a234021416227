"""The example scripts, imported as a person runs them: with `examples/` on the path."""

import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = (  # noqa: SIM905
    "--iterations 2 --prompts_per_iteration 2 --clips_per_prompt 2 --batch_size 2 "
    "--num_inference_steps 2 --evaluation_clips 4 --evaluate_every 2 --save_every 1 --samples 0 "
    "--lora_rank 2 --device cpu"
).split()
"""Settings of the smallest run that has everything; the toy pipeline and judge are the defaults."""


@pytest.fixture(scope="session", autouse=True)
def examples_path():
    sys.path.insert(0, str(EXAMPLES))
    yield EXAMPLES
    sys.path.remove(str(EXAMPLES))
