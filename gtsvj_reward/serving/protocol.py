"""Requests of `/v1/score` as bytes, both ways; no network. `replies.py` has the answers.

Version "1" is that of verl-omni's `latent_http_scorer_client` (one image latent, prompt embeddings
and a noise level); it names no latent space, so the URL does. Version "2" is this package's: video
latents, the latent space by name, optional prompt embeddings and reference images.
`docs/serving.md` has both in full.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.backbones import ImageCondition, TextCondition
from gtsvj_reward.reward import Clips
from gtsvj_reward.serving.bodies import (
    FLOATS,
    MalformedError as MalformedError,
    read_body,
    write_body,
)
from gtsvj_reward.serving.replies import HOST_VERSION as HOST_VERSION
from gtsvj_reward.serving.spaces import read_space

PATH = "/v1/score"
JUDGE_PATH = "/v1/judges/{name}/score"
VERSION = "2"
VERSION_HEADER = "x-drm-protocol-version"
CONTENT_TYPE = "application/octet-stream"

_FLOAT = frozenset(FLOATS)
TENSORS_2 = {
    "latents": (5, _FLOAT),
    "prompt_embeds": (3, _FLOAT),
    "prompt_mask": (2, frozenset({"BOOL"})),
    "pooled_prompt_embeds": (2, _FLOAT),
    "image_latents": (5, _FLOAT),
    "image_embeds": (3, _FLOAT),
}
"""Version 2: name -> rank and types."""
TENSORS_1 = {
    "latents": (4, _FLOAT),
    "prompt_embeds": (3, _FLOAT),
    "pooled_prompt_embeds": (2, _FLOAT),
    "u": (1, frozenset({"F32"})),
    "seeds": (1, frozenset({"I64"})),
}
"""The same for version 1."""
SETTINGS = {"latent_space_id", "latent_space", "fps", "num_frames", "normalize", "prompt_family",
            "image_family", "image_factor"}  # fmt: skip
"""Metadata of version 2; version 1 has the first four in the URL."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreRequest(Clips):
    """A client's request: scores of clips of one shape."""

    latents: Float[Tensor, "clip time channel height width"]
    """As they were sent, in float32, float16 or bfloat16."""
    space_id: str
    """Name of the latent space according to the client; `space` is the whole of it, if the client
    sent that."""
    normalize: bool = True
    """Also give the score that is normalised by the checkpoint's mean and standard deviation."""
    version: str = VERSION
    """Of the protocol."""

    def prompts(self, are_read: bool) -> TextCondition | None:
        """The prompts for a judge, given whether it reads them.

        Version 1 cannot leave them out, nor the pooled embeddings, which no judge takes without a
        mask: of these only the embeddings are for judges that read prompts.
        """
        if self.version != HOST_VERSION:
            return self.text
        return TextCondition(self.text.embeds) if are_read and self.text is not None else None


def write_request(request: ScoreRequest) -> bytes:
    """The body of a version 2 request."""
    tensors: dict[str, Tensor | None] = {"latents": request.latents}
    if request.text is not None:
        tensors["prompt_embeds"] = request.text.embeds
        tensors["prompt_mask"] = request.text.mask
        tensors["pooled_prompt_embeds"] = request.text.pooled
    image = request.image
    if image is not None:
        tensors["image_latents"], tensors["image_embeds"] = image.latents, image.embeds
    settings = {
        "latent_space_id": request.space_id,
        "latent_space": None if request.space is None else json.dumps(request.space.to_dict()),
        "fps": None if request.fps is None else repr(float(request.fps)),
        "num_frames": None if request.num_frames is None else str(request.num_frames),
        "normalize": "true" if request.normalize else "false",
        "prompt_family": None if request.text is None else request.text.family,
        "image_family": None if image is None else image.family,
        "image_factor": None if image is None else repr(float(image.factor)),
    }
    return write_body(
        {name: tensor for name, tensor in tensors.items() if tensor is not None},
        {name: value for name, value in settings.items() if value is not None},
    )


def read_request(body: bytes, version: str | None, query: Mapping[str, str]) -> ScoreRequest:
    """The request in a body.

    Args:
        body: any bytes.
        version: value of `x-drm-protocol-version`.
        query: parameters of the URL.

    Raises:
        MalformedError: if it is not a request of a known version; whether the judge can score it
            is another question.
    """
    if version == VERSION:
        if query:
            raise MalformedError(f"version 2 takes no parameters in the URL, got {sorted(query)}")
        tensors, metadata = read_body(body, TENSORS_2)
        settings = {name: text for name, text in metadata.items() if name != "format"}
        return _request(tensors, settings, version)
    if version == HOST_VERSION:
        tensors, _ = read_body(body, TENSORS_1)
        _check_host_tensors(tensors)
        tensors["latents"] = tensors["latents"][:, None]  # an image is a clip of one latent frame
        if "normalize" in query:
            raise MalformedError("version 1 answers with raw scores only: leave `normalize` out")
        return _request(tensors, query, version)
    raise MalformedError(
        f"the header {VERSION_HEADER} must be '{VERSION}', or '{HOST_VERSION}' for single image "
        f"latents, got {version and version[:20]!r}"
    )


def _request(
    tensors: Mapping[str, Tensor], settings: Mapping[str, str], version: str
) -> ScoreRequest:
    unknown = sorted(set(settings) - SETTINGS)
    if unknown:
        raise MalformedError(f"unknown settings {unknown[:5]}, expected some of {sorted(SETTINGS)}")
    if "latents" not in tensors:
        raise MalformedError("the tensor `latents` is missing")
    space = read_space(settings["latent_space"]) if "latent_space" in settings else None
    space_id = settings.get("latent_space_id") or (space and space.id)
    if not space_id or (space and space.id != space_id):
        where = "in the URL (?latent_space_id=...)" if version == HOST_VERSION else "as metadata"
        raise MalformedError(
            f"`latent_space_id` must name the space of the latents, {where}, e.g. 'cogvideox-2b', "
            f"got {settings.get('latent_space_id')!r} beside the space {space and space.id!r}"
        )
    normalize = settings.get("normalize", "true")
    if normalize not in ("true", "false"):
        raise MalformedError(f"`normalize` must be 'true' or 'false', got {normalize[:20]!r}")
    return ScoreRequest(
        latents=tensors["latents"],
        space_id=space_id,
        space=space,
        fps=_number(settings, "fps"),
        num_frames=_count(settings, "num_frames"),
        text=_text(tensors, settings.get("prompt_family")),
        image=_image(tensors, settings),
        normalize=normalize == "true" and version == VERSION,
        version=version,
    )


def _text(tensors: Mapping[str, Tensor], family: str | None) -> TextCondition | None:
    """Prompt embeddings, whose rows and words must agree with the clips and one another."""
    embeds = tensors.get("prompt_embeds")
    mask, pooled = tensors.get("prompt_mask"), tensors.get("pooled_prompt_embeds")
    if embeds is None:
        if mask is not None or pooled is not None:
            raise MalformedError("`prompt_mask` and `pooled_prompt_embeds` need `prompt_embeds`")
        return None
    clips = len(tensors["latents"])
    fits = len(embeds) == clips and (pooled is None or len(pooled) == clips)
    if not fits or (mask is not None and mask.shape != embeds.shape[:2]):
        shapes = {name: tuple(x.shape) for name, x in tensors.items() if "prompt" in name}
        raise MalformedError(f"prompt tensors {shapes} do not go with {clips} clips")
    return TextCondition(embeds, mask, pooled, family)


def _image(tensors: Mapping[str, Tensor], settings: Mapping[str, str]) -> ImageCondition | None:
    """Reference images, whose rows must agree with the clips."""
    latents, embeds = tensors.get("image_latents"), tensors.get("image_embeds")
    factor = _number(settings, "image_factor")
    if latents is None:
        if embeds is not None or factor is not None or "image_family" in settings:
            raise MalformedError(
                "`image_embeds`, `image_family` and `image_factor` need `image_latents`"
            )
        return None
    clips = len(tensors["latents"])
    if len(latents) != clips or (embeds is not None and len(embeds) != clips):
        shapes = {name: tuple(x.shape) for name, x in tensors.items() if "image" in name}
        raise MalformedError(f"image tensors {shapes} do not go with {clips} clips")
    return ImageCondition(latents, embeds, factor or 1.0, settings.get("image_family"))


def _check_host_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Reject features of version 1 that judges do not support."""
    missing = {"latents", "prompt_embeds", "pooled_prompt_embeds", "u"} - set(tensors)
    if missing:
        raise MalformedError(f"tensors are missing: {sorted(missing)}")
    shape = tuple(tensors["latents"].shape)
    if any(len(tensors[name]) != 1 for name in ("latents", "u", "seeds") if name in tensors):
        raise MalformedError(
            f"version 1 carries one sample: `latents` (1, channel, height, width), got {shape}, "
            "`u` and `seeds` of one number; videos need version 2"
        )
    if tensors["u"].item() != 0:
        raise MalformedError(
            f"`u` asks for noise of level {tensors['u'].item():g}, the judge scores clean latents: "
            "set the client's `noise_level` to 0"
        )


def _number(settings: Mapping[str, str], name: str) -> float | None:
    """A positive number, or None where there is none."""
    if name not in settings:
        return None
    try:
        value = float(settings[name])
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise MalformedError(f"`{name}` must be a positive number, got {settings[name][:20]!r}")
    return value


def _count(settings: Mapping[str, str], name: str) -> int | None:
    """A positive whole number, or None where there is none."""
    digits = settings.get(name)
    if digits is None:
        return None
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 10 and int(digits)):
        raise MalformedError(f"`{name}` must be a positive whole number, got {digits[:20]!r}")
    return int(digits)
