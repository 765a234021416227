"""A client on both sides of `fork`: each process gets the scores of its own clips."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.serving.server import assert_same_scores, varied

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_children_of_fork_get_their_own_scores(port, offline, tmp_path):
    """On one inherited connection they would read one another's answers."""
    latents = varied(4)
    save_file({"latents": latents}, tmp_path / "latents.safetensors")
    words = [str(port), str(tmp_path / "latents.safetensors"), str(tmp_path / "found.safetensors")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.serving.forked", *words]
    subprocess.run(command, check=True, env=environment, cwd=ROOT, timeout=300)
    found = load_file(tmp_path / "found.safetensors")
    expected = offline(latents)
    for scores in found["children"].T:
        assert_same_scores(scores, expected)
    assert_same_scores(found["parent"], expected[:1], std=expected.std().item())
