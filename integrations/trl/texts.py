"""Completions as prompts of videos."""

import json
from hashlib import sha256

from gtsvj_reward.integrations.trl.rows import Text


def completion_text(completion: Text) -> str:
    """The text of a completion, of a conversation the last message; without surrounding blanks.

    Raises:
        ValueError: if the last message is not the assistant's, or not text.
    """
    if isinstance(completion, str):
        return completion.strip()
    role = completion[-1]["role"] if completion else None
    if role != "assistant":
        raise ValueError(
            f"a completion must end with a message of the assistant, got role {role!r} last of "
            f"{len(completion)} messages: pass `to_prompt` to find the video's prompt in it"
        )
    content = completion[-1].get("content")
    if content is not None and not isinstance(content, str):
        raise ValueError(
            f"the assistant's message must be a string, got {type(content).__name__}: pass "
            "`to_prompt` to find the video's prompt in it"
        )
    return (content or "").strip()


def prompt_text(prompt: Text) -> str:
    """The text of a prompt, of a conversation the last message.

    Raises:
        ValueError: if that is not text.
    """
    content = prompt if isinstance(prompt, str) else prompt[-1].get("content") if prompt else None
    if not isinstance(content, str):
        raise ValueError(
            f"expected a prompt, or a conversation that ends with one, got {prompt!r}: "
            "`prompt_column` names the column with the prompts of the clips"
        )
    return content.strip()


def noise_seed(seed: int, prompt: Text, step: int) -> int:
    """Seed of the noise that all completions of a prompt start from in a step; below 2^63.

    Raises:
        TypeError: for a prompt that holds more than text.
    """
    try:
        key = json.dumps([seed, prompt, step], sort_keys=True)
    except TypeError as error:
        raise TypeError(
            f"the noise is drawn from the prompt, which must be text or messages of text: {error}"
        ) from error
    return int.from_bytes(sha256(key.encode()).digest()[:8], "big") >> 1
