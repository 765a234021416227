"""A client on both sides of `fork`: each process gets the scores of its own clips."""

from functools import partial

from safetensors.torch import load_file, save_file

from tests.ranks import on_unix, run_apart
from tests.serving import forked
from tests.serving.server import assert_same_scores, varied


@on_unix
def test_children_of_fork_get_their_own_scores(port, offline, tmp_path):
    """On one inherited connection they would read one another's answers."""
    latents = varied(4)
    save_file({"latents": latents}, tmp_path / "latents.safetensors")
    given, written = tmp_path / "latents.safetensors", tmp_path / "found.safetensors"
    assert run_apart([partial(forked.main, port, given, written)]) == [0]
    found = load_file(written)
    expected = offline(latents)
    for scores in found["children"].T:
        assert_same_scores(scores, expected)
    assert_same_scores(found["parent"], expected[:1], std=expected.std().item())
