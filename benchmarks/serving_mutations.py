"""100,000 mutated bodies against the parser and the checks of the scoring server.

    python -m benchmarks.serving_mutations

Each must be read, or refused with one of the two errors that the server answers with 4xx. Anything
else stops the run, with the body written to a file. The tests do the same with fewer bodies,
through a running server.
"""

import argparse
import random
import time
from collections import Counter
from pathlib import Path

import torch
from diffusers import CogVideoXTransformer3DModel

from gtsvj_reward import GTSVJReward, JudgeConfig, LatentSpace, TextCondition, VideoJudge
from gtsvj_reward.serving.jobs import admit
from gtsvj_reward.serving.protocol import (
    MalformedError,
    ScoreRequest,
    read_request,
    write_request,
)

SPACE = LatentSpace(id="random", channels=4, mean=(0.0,) * 4, std=(1.0,) * 4)


def tiny_reward() -> GTSVJReward:
    """A judge whose weights do not matter: nothing is scored."""
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=1,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        text_embed_dim=8,
        time_embed_dim=8,
        max_text_seq_length=4,
    )
    config = JudgeConfig(base_model="random", latent_space=SPACE, text_input="prompt")
    return GTSVJReward(VideoJudge.from_transformer(transformer, config))


def sound_bodies() -> list[bytes]:
    """Requests of all forms."""
    latents = torch.randn(2, 3, 4, 4, 4)
    mask = torch.ones(2, 4, dtype=torch.bool)
    text = TextCondition(torch.randn(2, 4, 8), mask, torch.randn(2, 3))
    common = {"space_id": SPACE.id, "normalize": False}
    return [
        write_request(ScoreRequest(latents=latents, text=text, space=SPACE, **common)),
        write_request(ScoreRequest(latents=latents.half(), text=text, fps=8.0, **common)),
        write_request(ScoreRequest(latents=latents.bfloat16(), num_frames=9, **common)),
    ]


def mutated(body: bytes, draw: random.Random) -> bytes:
    """Up to five changes: bytes changed, lost, put in, doubled; digits and the length altered."""
    changed = bytearray(body)
    header = 8 + int.from_bytes(body[:8], "little")
    for _ in range(draw.randint(1, 5)):
        end = header if draw.random() < 0.8 else len(changed)
        at, length = draw.randrange(max(1, min(end, len(changed)))), draw.randint(1, 8)
        kind = draw.randrange(7)
        if kind == 0:
            changed[at : at + length] = draw.randbytes(length)
        elif kind == 1:
            del changed[at : at + length]
        elif kind == 2:
            changed[at:at] = draw.randbytes(length)
        elif kind == 3:
            changed[at:at] = changed[at : at + length]
        elif kind == 4:
            digits = [i for i, byte in enumerate(changed[:header]) if chr(byte).isdigit()]
            if digits:
                changed[draw.choice(digits)] = ord(draw.choice("0123456789"))
        elif kind == 5:
            changed[:8] = draw.randint(0, 2 * len(changed)).to_bytes(8, "little")
        else:
            changed = changed[: draw.randrange(len(changed) + 1)]
            changed.extend(bytes(max(0, 8 - len(changed))))
    return bytes(changed)


def outcome(body: bytes, reward: GTSVJReward) -> str:
    """The server's answer before scoring."""
    try:
        request = read_request(body, "2", {})
    except MalformedError:
        return "400"
    try:
        admit(reward, request, 32)
    except ValueError:
        return "422"
    return "taken"


def main() -> None:
    """Mutate and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bodies", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw, reward, sound = random.Random(args.seed), tiny_reward(), sound_bodies()
    seen, began = Counter[str](), time.perf_counter()
    for number in range(args.bodies):
        body = mutated(draw.choice(sound), draw)
        finished = False
        try:
            seen[outcome(body, reward)] += 1
            finished = True
        finally:
            if not finished:
                Path("body.bin").write_bytes(body)
                print(f"body {number} is neither read nor refused: see body.bin")
    print(f"{args.bodies} bodies in {time.perf_counter() - began:.0f} s: {dict(seen)}")


if __name__ == "__main__":
    main()
