"""Prompts kept beside latent clips."""

import json

import pytest
import torch

from gtsvj_reward.latents import LatentFolder
from gtsvj_reward.reward import PromptEncoder
from gtsvj_reward.reward.text_store import (
    PromptStoreError,
    TextStore,
    text_file,
    write_texts,
)
from tests.pipelines import cogvideox, frozen, hunyuan_video, wan
from tests.training.clips import write_clips


@pytest.fixture
def folder(tmp_path):
    write_clips(tmp_path / "latents" / "real", 3)
    return LatentFolder(tmp_path / "latents")


def keep(folder, prompts, make=cogvideox, **further):
    sources = [info.source for info in folder.infos]
    encoder = PromptEncoder(frozen(make))
    return encoder, write_texts(
        folder.path, sources, dict(zip(sources, prompts, strict=True)), encoder, **further
    )


@pytest.mark.parametrize("make", [cogvideox, hunyuan_video])
def test_what_was_said_comes_back_bitwise(folder, make):
    prompts = ["a dog", "a red square", "a dog"]
    encoder, count = keep(folder, prompts, make)
    assert count == 2
    store = TextStore.beside(folder.path / "real")
    assert [store.prompt(info) for info in folder.infos] == prompts
    found, expected = store.text_of(folder.infos), encoder(prompts)
    assert found.family == expected.family
    for part in ("embeds", "mask", "pooled"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)
    assert len(LatentFolder(folder.path)) == 3, "prompts are no latent files"
    _, again = keep(folder, ["a dog", "a dog", "runs"], make)
    assert again == 1
    assert TextStore.beside(folder.path).prompt(folder.infos[1]) == "a dog"


def test_prompts_that_a_stopped_run_left_are_of_its_family(folder, monkeypatch):
    monkeypatch.setattr("gtsvj_reward.reward.text_store.AT_ONCE", 1)

    class Stopped(PromptEncoder):
        def __call__(self, prompts):
            if prompts == ["runs"]:
                raise KeyboardInterrupt
            return super().__call__(prompts)

    sources = [info.source for info in folder.infos]
    said = dict(zip(sources, ["a dog", "a dog", "runs"], strict=True))
    with pytest.raises(KeyboardInterrupt):
        write_texts(folder.path, sources, said, Stopped(frozen(cogvideox)))
    with pytest.raises(PromptStoreError, match=r"for a CogVideoX.*, these are for a WanTrans"):
        keep(folder, list(said.values()), wan)
    assert keep(folder, list(said.values()))[1] == 1


def test_what_is_missing_or_does_not_fit_is_refused(folder, tmp_path):
    assert TextStore.beside(folder.path) is None
    with pytest.raises(PromptStoreError, match="does not list the prompts of the clips"):
        TextStore(tmp_path)
    keep(folder, ["a dog", "a dog", "runs"])
    with pytest.raises(PromptStoreError, match=r"for a CogVideoX.*, these are for a WanTrans"):
        keep(folder, ["a dog", "a dog", "runs"], wan)
    kept = folder.path / "prompts"
    (kept / text_file("runs")).rename(kept / text_file("other"))
    store = TextStore(kept)
    with pytest.raises(PromptStoreError, match="of the prompt 'runs': encode again"):
        store.text_of(folder.infos)
    with pytest.raises(PromptStoreError, match="is not of the prompt 'other'"):
        store.read("other")
    index = json.loads((kept / "prompts.json").read_text())
    del index["prompts"][folder.infos[0].source]
    (kept / "prompts.json").write_text(json.dumps(index))
    with pytest.raises(PromptStoreError, match=r"has no prompt \(2 others\)"):
        TextStore(kept).text_of(folder.infos)


def test_wrong_prompts_are_of_clips_that_are_there_and_not_their_own(folder):
    prompts = ["a dog", "a dog", "runs"]
    first = folder.infos[0].source
    keep(folder, prompts, wrong={first: ["runs", "a square"]})
    store = TextStore.beside(folder.path)
    assert store.wrong == {first: ["runs", "a square"]}
    assert store.read("a square").embeds.any()
    for wrong, message in (
        ({first: ["red", "a dog"]}, "1 of 1 clips have their own prompt among the wrong ones"),
        ({"nowhere.mp4": ["red"]}, "1 of 1 videos with wrong prompts have no latents here"),
    ):
        with pytest.raises(PromptStoreError, match=message):
            keep(folder, prompts, wrong=wrong)
