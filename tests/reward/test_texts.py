"""Prompts through each pipeline's own text encoder."""

import gc

import pytest
import torch

from gtsvj_reward.backbones import TextCondition, backbone_for
from gtsvj_reward.backbones.load import BACKBONES
from gtsvj_reward.reward import PromptEncoder, text_of
from gtsvj_reward.reward.texts import ENCODERS, KNOWN
from tests.pipelines import PIPELINES, SIZES, cogvideox, frozen, wan

TEXT_INPUTS = ("encoder_hidden_states", "encoder_attention_mask", "pooled_projections")
CALL = {"num_inference_steps": 2, "output_type": "latent"}


def given_by_pipeline(pipe, name, prompt):
    """The text with which the pipeline's own call runs its transformer, without guidance."""
    seen = []
    hook = pipe.transformer.register_forward_pre_hook(
        lambda module, args, inputs: seen.append(inputs), with_kwargs=True
    )
    more = {"cogvideox": {"max_sequence_length": 6}}.get(name, {})
    guidance = 6.0 if name == "hunyuan_video" else 1.0
    try:
        pipe(prompt, guidance_scale=guidance, **CALL, **SIZES[name], **more)
    finally:
        hook.remove()
    return {key: seen[0][key] for key in TEXT_INPUTS if seen[0].get(key) is not None}


def test_every_backbone_has_an_encoder():
    assert set(ENCODERS) == set(BACKBONES)


@pytest.mark.parametrize("name", PIPELINES)
def test_prompts_are_encoded_as_the_pipeline_does_when_it_generates(name):
    pipe = frozen(PIPELINES[name])
    backbone = backbone_for(pipe.transformer)
    channels = pipe.transformer.config.in_channels
    prompts = ["a dog runs", "a red square", ""]
    text = text_of(pipe, prompts)
    assert (text.embeds[0] - text.embeds[1]).abs().max() > 1e-3
    for row, prompt in enumerate(prompts):
        one = text.rows(torch.tensor([row]))
        latents = torch.zeros(1, 3, channels, 2, 2)
        ours = backbone.inputs(latents, timestep=500.0, text=one)
        theirs = given_by_pipeline(pipe, name, prompt)
        for key, expected in theirs.items():
            found = ours[key]
            if name == "ltx" and key == "encoder_attention_mask":
                found = found[:, 0] == 0  # what is added to the attention
            torch.testing.assert_close(found.float(), expected.float(), msg=f"{prompt}: {key}")


def test_each_prompt_is_encoded_once_and_depends_on_no_other():
    pipe, seen = frozen(wan), []
    pipe.text_encoder.register_forward_hook(lambda *_: seen.append(1))
    text = text_of(pipe, ["a dog runs", "", "a dog runs"])
    assert len(seen) == 2
    assert torch.equal(text.embeds[0], text.embeds[2])
    again = text_of(pipe, ["", "a red square"])
    assert len(seen) == 3
    assert torch.equal(again.embeds[0], text.embeds[1])
    assert text.family == "WanTransformer3DModel"
    other = frozen(wan)
    assert torch.equal(text_of(other, ["a dog runs"]).embeds[0], text.embeds[0])
    assert not text.embeds.requires_grad


def test_what_was_said_is_forgotten_with_the_pipeline():
    gc.collect()
    before = len(KNOWN)
    pipe = frozen(wan)
    text_of(pipe, ["a dog runs"])
    assert len(KNOWN) == before + 1
    del pipe
    gc.collect()
    assert len(KNOWN) == before


def test_encoders_go_to_a_device_for_a_call_and_back():
    pipe, seen = frozen(cogvideox), []
    expected = text_of(pipe, ["a dog runs"]).embeds
    KNOWN.clear()
    moved = pipe.text_encoder.to
    pipe.text_encoder.to = lambda device: (seen.append(str(device)), moved(device))[1]
    encoder = PromptEncoder(pipe, encode_on="cpu")
    assert torch.equal(encoder(["a dog runs"]).embeds, expected)
    assert seen == ["cpu", "cpu"]


def test_an_encoder_without_its_transformer():
    pipe = frozen(cogvideox)
    expected = text_of(pipe, ["a dog runs"]).embeds
    config = {"_class_name": "CogVideoXTransformer3DModel", **pipe.transformer.config}
    pipe.register_modules(transformer=None)
    KNOWN.clear()
    with pytest.raises(ValueError, match="has no transformer: give `transformer_config`"):
        text_of(pipe, ["a dog runs"])
    assert torch.equal(
        PromptEncoder(pipe, transformer_config=config)(["a dog runs"]).embeds, expected
    )


def test_bad_prompts_and_pipelines_are_refused():
    pipe = frozen(wan)
    with pytest.raises(ValueError, match="expected a list of at least one prompt, got 'a dog'"):
        text_of(pipe, "a dog")
    with pytest.raises(ValueError, match=r"at least one prompt, got \[\]"):
        text_of(pipe, [])
    with pytest.raises(ValueError, match="no text encoder is known for a UNet"):
        PromptEncoder(pipe, transformer_config={"_class_name": "UNet"})
    pipe.register_modules(text_encoder=None)
    with pytest.raises(ValueError, match="the WanPipeline has no text encoder: load it with one"):
        text_of(pipe, ["a dog"])


def test_the_encoder_of_another_family_is_refused():
    """Both have text of one width."""
    text = text_of(frozen(wan), ["a dog runs"])
    backbone = backbone_for(frozen(cogvideox).transformer)
    latents = torch.zeros(1, 3, 4, 4, 4)
    with pytest.raises(ValueError, match="encoded for a WanTransformer3DModel, this is a CogV"):
        backbone(latents, timestep=0.0, text=text)
    with pytest.raises(ValueError, match="encoded for a WanTransformer3DModel, this is a CogV"):
        backbone.predict(latents, timestep=0.0, text=text)


def test_conditions_of_one_kind_are_joined_and_others_refused():
    def condition(words=3, mask=False, family=None):
        some = torch.ones(1, words, dtype=torch.bool) if mask else None
        return TextCondition(torch.randn(1, words, 4), some, None, family)

    joined = TextCondition.cat([condition(mask=True, family="A"), condition(mask=True, family="A")])
    assert joined.embeds.shape == (2, 3, 4)
    assert joined.mask.shape == (2, 3)
    assert joined.family == "A"
    for other in (condition(4), condition(mask=True), condition(family="A")):
        with pytest.raises(ValueError, match=r"encoded alike .* number 0 is .*, number 1 is"):
            TextCondition.cat([condition(), other])
