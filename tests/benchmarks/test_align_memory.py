"""What alignment needs is put together from its parts, and read against cards rightly."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import align_memory
from benchmarks.align_memory import CARDS, MODELS, Need, fits, needs, read, report
from benchmarks.counting import GIB
from tests.benchmarks.test_cost import TINY

ROOT = Path(__file__).parents[2]
NEED = Need(model="m", size="s", algorithm="a", recomputing=False, weights=10 * GIB,
            policy=2 * GIB, kept=GIB, saved=5 * GIB, peak=8 * GIB)  # fmt: skip


def test_the_smallest_card_is_named():
    assert NEED.total == 21 * GIB  # saved bytes are part of the peak
    assert fits(NEED) == "24 GB"  # 21 of 21.6
    assert fits(replace(NEED, kept=2 * GIB)) == "48 GB"
    assert fits(replace(NEED, peak=60 * GIB)) == "none"
    assert CARDS == (24, 48, 80)


def test_a_line_of_the_table_by_hand():
    assert report([NEED]).splitlines()[2] == (
        "| m | s | a | stored | 10.00 | 2.00 | 1.00 | 5.00 | 8.00 | 21.00 | 24 GB |"
    )


@pytest.fixture(scope="module")
def found():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(align_memory.FULL_MODELS, "tiny", TINY)
        told = replace(align_memory.TOLD["CogVideoXTransformer3DModel"], words=6)
        patch.setitem(align_memory.TOLD, "CogVideoXTransformer3DModel", told)
        patch.setattr(align_memory, "RANK", 3)
        return list(needs("tiny", "9x64x96"))


def test_weights_are_counted_once_and_the_adapter_with_its_averages(found):
    # 6 blocks, 4 layers of 32x32, rank 3, two matrices of each.
    adapter = 6 * 4 * (3 * 32 + 32 * 3)
    assert {need.policy for need in found[:-1]} == {adapter * 12}
    base = 2 * sum(p.numel() for p in TINY.transformer().parameters())
    judge = TINY.judge(TINY.transformer())
    theirs = {id(tensor) for _, tensor in judge.backbone.base_tensors()}
    own = 4 * sum(p.numel() for p in judge.parameters() if id(p) not in theirs)
    assert {need.weights for need in found} == {base + own}


def test_two_steps_keep_more_than_one_and_recomputing_less(found):
    rows = {(need.algorithm, need.recomputing): need for need in found}
    one, two = (rows[f"reward gradients, K = {k}", False] for k in (1, 2))
    ddpo = rows["DDPO", False]
    assert two.saved > one.saved > ddpo.saved > 0
    assert two.saved - one.saved == pytest.approx(ddpo.saved, rel=0.25), "one more guided step"
    for (algorithm, recomputing), need in rows.items():
        assert need.saved <= need.peak
        if recomputing:
            assert need.saved < rows[algorithm, False].saved
            assert need.peak < rows[algorithm, False].peak


def test_best_of_n_has_no_gradients(found):
    best = found[-1]
    assert (best.saved, best.policy) == (0, 0)
    assert 0 < best.peak < min(need.peak for need in found[:-1])


def test_trajectories_are_kept_by_ddpo_alone(found):
    clip = 4 * 3 * 16 * 8 * 12
    kept = {need.algorithm: need.kept for need in found}
    # 8 clips of 8 prompts, 20 steps; 6 words of a prompt and of the empty one in bfloat16
    width = TINY.transformer().config.text_embed_dim
    assert kept["DDPO"] == 64 * (21 * clip + 2 * 6 * width * 2)
    assert kept["Diffusion-DPO"] == 16 * clip
    assert kept["reward gradients, K = 1"] == clip
    assert kept["best of 16"] == 16 * clip


def test_the_page_shows_what_was_written():
    rows = read(ROOT / "benchmarks/results/align_memory.json")
    page = (ROOT / "docs/alignment/memory.md").read_text()
    counted = {(need.model, need.size) for need in rows}
    assert counted == {(model, size) for model, sizes in MODELS.items() for size in sizes}
    assert report(rows) in page, "run `python -m benchmarks.align_memory` and paste the table"
    whole = [
        chain(rows, model, recomputing)
        for recomputing in (True, False)
        for model in ("CogVideoX-2B", "Wan2.1-1.3B")
    ]
    assert (
        "The graph of all 20 steps would need {:.0f} GiB for the 2B and {:.0f} for Wan2.1-1.3B, "
        "or {:.1f} and {:.1f} TiB without recomputing"
    ).format(*whole[:2], *(need / 1024 for need in whole[2:])) in " ".join(page.split())


def chain(rows, model, recomputing):
    """GiB of reward gradients through 20 steps: K = 2, and 18 times what K = 2 adds to K = 1."""
    one, two = (
        need.total
        for need in rows
        if (need.model, need.size, need.recomputing) == (model, MODELS[model][0], recomputing)
        and need.algorithm.startswith("reward gradients")
    )
    return (two + 18 * (two - one)) / GIB
