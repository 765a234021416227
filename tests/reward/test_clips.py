"""Clips as a value: what they refuse, how they are cut up, and what messages call them."""

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.judge import Geometry
from gtsvj_reward.latents.space import LatentSpaceError
from gtsvj_reward.reward import Clips, GeometryError, NonFiniteError, as_reward
from tests.tiny import clips, mixed_clips, tiny_judge, tiny_space

NAMES = ["ant", "bee", "cat", "dog", "eel", "fox"]


def test_what_does_not_go_together_is_refused():
    text = TextCondition(torch.zeros(3, 6, 8))
    with pytest.raises(ValueError, match="3 text embeddings for 2 clips"):
        Clips(latents=clips(2), text=text)
    with pytest.raises(ValueError, match="3 names for 2 clips"):
        Clips(latents=clips(2), names=["a", "b", "c"])
    with pytest.raises(ValueError, match="3 prompts for 2 clips"):
        Clips(latents=clips(2), texts=["a", "b", "c"])
    for empty in ([], clips(2)[:0]):
        with pytest.raises(ValueError, match="no clips to score"):
            Clips(latents=empty)


@pytest.mark.parametrize("size", [None, 1, 2, 5])
def test_buckets_hold_one_shape_and_type_and_every_clip_once(size):
    mixed = [*mixed_clips(), mixed_clips()[0].double()]
    found = Clips(latents=mixed).buckets(size)
    assert sorted(index for bucket in found for index in bucket) == list(range(7))
    for bucket in found:
        assert bucket == sorted(bucket)
        assert 1 <= len(bucket) <= (size or 7)
        assert len({(mixed[index].shape, mixed[index].dtype) for index in bucket}) == 1
    if size != 1:
        assert [0, 2] in found
        assert [6] in found, "another type shares no forward pass"


def test_rows_keep_what_belongs_to_each_clip():
    text = TextCondition(torch.arange(6.0)[:, None, None])
    given = Clips(latents=mixed_clips(), fps=8.0, text=text, texts=NAMES[::-1], names=NAMES)
    rows = given.rows([4, 1])
    assert [clip.tolist() for clip in rows.latents] == [
        given.latents[index].tolist() for index in (4, 1)
    ]
    assert rows.text.embeds.flatten().tolist() == [4, 1]
    assert (rows.names, rows.fps) == (["eel", "bee"], 8.0)
    assert rows.texts == [NAMES[::-1][4], NAMES[::-1][1]]


@pytest.mark.parametrize("names", [None, NAMES])
@pytest.mark.parametrize("form", ["list", "tensor"])
@pytest.mark.parametrize("bad", [0, 3, 5])
def test_a_refused_clip_is_called_by_its_index_and_name(form, names, bad):
    latents = clips(6)
    latents[bad, 1, 2] = torch.nan
    given = latents if form == "tensor" else list(latents)
    label = f"clip {bad}" if names is None else rf"clip {bad} \({NAMES[bad]}\)"
    if form == "tensor" and names is None:
        label = rf"latents\[{bad}\]"
    with pytest.raises(LatentSpaceError, match=rf"^{label}.*non-finite"):
        GTSVJReward(tiny_judge()).score(Clips(latents=given, names=names))


@pytest.mark.parametrize("form", ["list", "tensor"])
def test_a_clip_of_another_length_is_called_by_its_index_and_name(form):
    latents = clips(3) if form == "tensor" else [*clips(2, 5), clips(1, 4)[0]]
    trained = Geometry(latent_frames=(3, 4), height=(4, 12), width=(4, 16), fps=(8.0, 30.0))
    first = "clip 0 .ant."
    with pytest.raises(GeometryError, match=rf"^{first}: latent frames 5 outside 3\.\.4"):
        GTSVJReward(tiny_judge(geometry=trained)).score(Clips(latents=latents, names=NAMES[:3]))


def test_padding_that_fits_no_length_is_said_of_its_clip():
    given = Clips(latents=[clips(1, 5)[0], clips(1, 4)[0]], num_frames=17, names=NAMES[:2])
    with pytest.raises(LatentSpaceError, match=r"^clip 1 \(bee\): 17 frames are 5 latent frames"):
        given.checked(tiny_space())
    with pytest.raises(LatentSpaceError, match=r"^clip 1: 17 frames are 5"):
        GTSVJReward(tiny_judge())(list(given.latents), num_frames=17)


def test_padding_is_dropped_once():
    space = tiny_space(patch_size_t=2)
    padded = Clips(latents=clips(2, 6), num_frames=17)
    once = padded.checked(space)
    assert torch.equal(once.latents, padded.latents[:, 1:])
    assert torch.equal(once.checked(space).latents, once.latents)


def test_scores_that_are_no_numbers_are_said_of_their_clip():
    given = Clips(latents=clips(3), names=NAMES[:3])
    scores = torch.tensor([0.0, 1.0, torch.inf])
    with pytest.raises(NonFiniteError, match=r"'own' gave clip 2 \(cat\) the score inf \(1 of 3"):
        as_reward(lambda latents, **_: scores, "own").score(given)
    judge = tiny_judge()
    judge.head.energy.weight.data.fill_(torch.inf)
    with pytest.raises(NonFiniteError, match=r"score of clip 0 \(ant\) is .*3 of 3"):
        GTSVJReward(judge).score(given)


def test_a_function_that_knows_no_names_gets_them_in_order():
    judge = GTSVJReward(tiny_judge())
    wrapped = as_reward(lambda latents, **given: judge(latents, **given))
    with pytest.raises(GeometryError, match=r"^ant, bee, in this order: clip 0: fps 99"):
        wrapped.score(Clips(latents=clips(2), fps=99.0, names=NAMES[:2]))
    with pytest.raises(GeometryError, match=r"^clip 0: fps 99"):
        wrapped(clips(2), fps=99.0)
