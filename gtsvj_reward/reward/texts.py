"""Prompts through the text encoder of the pipeline that they are for."""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from diffusers import DiffusionPipeline

from gtsvj_reward.assets import folder_of
from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.backbones.load import config_folder, settings_folder
from gtsvj_reward.reward.base import AnyReward, as_reward

CACHED = 256
"""Prompts that an encoder keeps; at CogVideoX's size one is 1.8 MB in half precision."""

EncodeOne = Callable[[Any, str, Mapping[str, Any], torch.device], TextCondition]
"""Pipeline, prompt, config of its transformer, device -> a batch of one."""

Encode = Callable[[Sequence[str]], TextCondition]
"""Prompts -> their embeddings; for example a `PromptEncoder`."""

KNOWN: WeakKeyDictionary[Any, OrderedDict[str, TextCondition]] = WeakKeyDictionary()
"""Pipeline -> prompt -> embedding."""

Device = str | torch.device | None


def cogvideox_text(
    pipe: Any, prompt: str, config: Mapping[str, Any], device: torch.device
) -> TextCondition:
    """Embeddings as long as the model was made for; it attends to the padding too."""
    length = config["max_text_seq_length"]
    embeds, _ = pipe.encode_prompt(
        prompt, do_classifier_free_guidance=False, max_sequence_length=length, device=device
    )
    return TextCondition(embeds)


def wan_text(
    pipe: Any, prompt: str, config: Mapping[str, Any], device: torch.device
) -> TextCondition:
    """512 embeddings as in the pipeline's call, zeros behind the prompt's own."""
    del config
    embeds, _ = pipe.encode_prompt(
        prompt, do_classifier_free_guidance=False, max_sequence_length=512, device=device
    )
    return TextCondition(embeds)


def masked_text(
    pipe: Any, prompt: str, config: Mapping[str, Any], device: torch.device
) -> TextCondition:
    """Embeddings of LTX and Mochi, and which of them are valid."""
    del config
    embeds, mask, *_ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False, device=device)
    return TextCondition(embeds, mask.bool())


def hunyuan_video_text(
    pipe: Any, prompt: str, config: Mapping[str, Any], device: torch.device
) -> TextCondition:
    """Embeddings by the language model, in the pipeline's template, and CLIP's pooled one.

    Raises:
        ValueError: for the image-to-video model, whose language model also reads the image.
    """
    condition = config["image_condition_type"]
    if condition is not None:
        interleave = 2 if condition == "latent_concat" else 4
        raise ValueError(
            "the text encoder of HunyuanVideo's image-to-video pipeline reads the image with the "
            "prompt: pass a `TextCondition` of what `pipe.encode_prompt(image, prompt, "
            f"image_embed_interleave={interleave})` returns"
        )
    embeds, pooled, mask = pipe.encode_prompt(prompt, device=device)
    return TextCondition(embeds, mask.bool(), pooled)


def hunyuan_video15_text(
    pipe: Any, prompt: str, config: Mapping[str, Any], device: torch.device
) -> TextCondition:
    """Embeddings by the language model, in the pipeline's template.

    What ByT5 says of words in quotation marks is left out: the judge reads them as the others.
    """
    del config
    embeds, mask, *_ = pipe.encode_prompt(prompt, device=device)
    return TextCondition(embeds, mask.bool())


def ltx2_text(
    pipe: Any, prompt: str, config: Mapping[str, Any], device: torch.device
) -> TextCondition:
    """What the pipeline's connectors make of the language model's states, for video."""
    del config
    states, mask, *_ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False, device=device)
    embeds, _, valid = pipe.connectors(states, mask, padding_side=pipe.tokenizer.padding_side)
    return TextCondition(embeds, valid.bool())


ENCODERS: dict[str, EncodeOne] = {
    "CogVideoXTransformer3DModel": cogvideox_text,
    "HunyuanVideo15Transformer3DModel": hunyuan_video15_text,
    "HunyuanVideoTransformer3DModel": hunyuan_video_text,
    "LTX2VideoTransformer3DModel": ltx2_text,
    "LTXVideoTransformer3DModel": masked_text,
    "MochiTransformer3DModel": masked_text,
    "WanTransformer3DModel": wan_text,
}
"""Class name of the transformer -> function that encodes one prompt with its pipeline."""


class PromptEncoder:
    """A pipeline's own text encoder, with a cache of prompts.

    Prompts are encoded one at a time, so an embedding does not depend on other prompts. The latest
    `CACHED` of them are kept on the CPU, for as long as the pipeline lives.

    Args:
        pipe: a diffusers pipeline with its text encoders; the transformer may be left out.
        transformer_config: `config.json` of the transformer, for a pipeline without it.
        encode_on: device that the text encoders are moved to for a call, and back from; None: they
            run where they are.

    Raises:
        ValueError: for a pipeline that is not known, or has no text encoder.
    """

    def __init__(
        self,
        pipe: Any,
        *,
        transformer_config: Mapping[str, Any] | None = None,
        encode_on: Device = None,
    ) -> None:
        if transformer_config is None:
            if pipe.transformer is None:
                raise ValueError(
                    "the pipeline has no transformer: give `transformer_config`, the config of it"
                )
            config = dict(pipe.transformer.config)
            self.family = type(pipe.transformer).__name__
        else:
            config = dict(transformer_config)
            self.family = str(config["_class_name"])
        if self.family not in ENCODERS:
            raise ValueError(
                f"no text encoder is known for a {self.family}; known: {', '.join(ENCODERS)}. "
                "Encode the prompts yourself, and pass a `TextCondition`"
            )
        self.pipe, self.config = pipe, config
        self.encode_on = None if encode_on is None else torch.device(encode_on)
        self.modules = [
            module
            for name, module in pipe.components.items()
            if name.startswith(("text_encoder", "connectors")) and module is not None
        ]
        if not self.modules:
            raise ValueError(
                f"the {type(pipe).__name__} has no text encoder: load it with one, or encode the "
                "prompts before it is dropped"
            )
        self.known = KNOWN.setdefault(pipe, OrderedDict())

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> TextCondition:
        """Embeddings of prompts, one row each, on the CPU.

        Raises:
            ValueError: for no prompts, or a single string.
        """
        if isinstance(prompts, str) or not prompts:
            raise ValueError(f"expected a list of at least one prompt, got {prompts!r}")
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.known]
        fresh = {}
        with self.awake() as device:
            for prompt in new:
                text = ENCODERS[self.family](self.pipe, prompt, self.config, device)
                fresh[prompt] = TextCondition(text.embeds, text.mask, text.pooled, self.family).to(
                    torch.device("cpu")
                )
        for prompt in dict.fromkeys(prompts):
            if prompt in self.known:
                self.known.move_to_end(prompt)
        self.known.update(fresh)
        found = TextCondition.cat([self.known[prompt] for prompt in prompts])
        while len(self.known) > CACHED:
            self.known.popitem(last=False)
        return found

    @contextmanager
    def awake(self) -> Iterator[torch.device]:
        """Where the encoders run, while they do."""
        if self.encode_on is None:
            yield self.modules[0].device
            return
        homes = [module.device for module in self.modules]
        try:
            for module in self.modules:
                module.to(self.encode_on)
            yield self.encode_on
        finally:
            for module, home in zip(self.modules, homes, strict=True):
                module.to(home)


def check_encode(reward: AnyReward, encode: Encode | None, setting: str = "encode") -> None:
    """Refuse a reward that needs prompts without their encoder, and an encoder without one.

    Args:
        reward: what will be called.
        encode: what will encode the prompts.
        setting: what the caller's settings call it.

    Raises:
        ValueError: naming the setting.
    """
    judge = as_reward(reward)
    if encode is None and judge.needs_text:
        raise ValueError(
            "the reward requires prompts (text_input='prompt', or a PromptScore): give "
            f"`{setting}`, a PromptEncoder of the generator's pipeline"
        )
    if encode is not None and not judge.reads_text:
        raise ValueError(f"the reward reads no prompts: leave `{setting}` out")


def text_of(pipe: Any, prompts: Sequence[str], *, encode_on: Device = None) -> TextCondition:
    """Embeddings of prompts by a pipeline's own text encoder, one row each; see `PromptEncoder`.

    Args:
        pipe: a diffusers pipeline of a known family.
        prompts: any texts; "" is the empty prompt.
        encode_on: see `PromptEncoder`.

    Raises:
        ValueError: for a pipeline that is not known or has no text encoder, and for no prompts.
    """
    return PromptEncoder(pipe, encode_on=encode_on)(prompts)


def load_prompt_encoder(
    source: str | Path, *, dtype: torch.dtype, device: str | torch.device
) -> PromptEncoder:
    """The text encoder of a pipeline, without its transformer and VAE.

    Args:
        source: a bundled name, a folder or a hub id of a pipeline of a known family.
        dtype: of the encoder.
        device: where it goes.

    Raises:
        FileNotFoundError: if there is no such pipeline.
        ValueError: for a family whose text encoder is not known.
    """
    folder = folder_of(source)
    settings = config_folder(settings_folder(folder))
    config = json.loads((settings / "config.json").read_text())
    pipe = DiffusionPipeline.from_pretrained(
        folder, transformer=None, vae=None, torch_dtype=dtype, use_safetensors=True
    )
    return PromptEncoder(pipe.to(device), transformer_config=config)
