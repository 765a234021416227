"""Throughput and latency of the scoring server, and whether its memory grows.

    python -m benchmarks.serving             # against offline scoring, with 32 clients
    python -m benchmarks.serving --judge gtsvj-toy    # likewise, a bundled judge
    python -m benchmarks.serving --memory    # resident memory from request 1,000 to 10,000

The server runs in a process of its own and the clients in threads of this one, so that they share
the machine: a client on another one costs the server less. Judges are random; the one for memory
is tiny, so that the requests count and not the scoring, and a tenth of its requests are faulty.
"""

import argparse
import multiprocessing
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

import httpx
import psutil
import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor

from gtsvj_reward import GTSVJReward, JudgeConfig, LatentSpace, VideoJudge
from gtsvj_reward.serving import ScoreClient
from gtsvj_reward.serving.app import create_app
from gtsvj_reward.serving.limits import Limits
from gtsvj_reward.serving.protocol import (
    CONTENT_TYPE,
    PATH,
    VERSION,
    VERSION_HEADER,
    ScoreRequest,
    write_request,
)
from gtsvj_reward.serving.reload import noise
from gtsvj_reward.serving.server import serve

SPACE = LatentSpace(id="random", channels=16)


def random_judge(width: int, layers: int) -> GTSVJReward:
    """A judge of random weights; the same in every process."""
    torch.manual_seed(0)
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=width // 32,
        attention_head_dim=32,
        num_layers=layers,
        text_embed_dim=64,
        time_embed_dim=64,
        max_text_seq_length=16,
        sample_width=24,
        sample_height=16,
        sample_frames=17,
    ).eval()
    config = JudgeConfig(
        base_model="random",
        latent_space=SPACE,
        reward_mean=0.0,
        reward_std=1.0,
        reward_data="none",
    )
    return GTSVJReward(VideoJudge.from_transformer(transformer, config))


Size = tuple[int, int] | str
"""Width and layers of a random judge, or the name of a bundled one."""


def judge_of(size: Size) -> GTSVJReward:
    """The judge, the same in every process."""
    return GTSVJReward.from_pretrained(size) if isinstance(size, str) else random_judge(*size)


def serve_judge(size: Size, limits: Limits, threads: int, said: Connection) -> None:
    """The server's process."""
    torch.set_num_threads(threads)
    serve(create_app(judge_of(size), limits=limits), port=0, announce=said.send)


@contextmanager
def started(target: Callable[..., None], arguments: tuple[Any, ...]) -> Iterator[tuple[str, int]]:
    """A serving process; yields its address and process id."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(*arguments, theirs))
    process.start()
    try:
        if not ours.poll(300) or process.pid is None:
            raise SystemExit("the server did not start")
        yield ours.recv(), process.pid
    finally:
        process.terminate()
        process.join(60)


def throughput(args: argparse.Namespace) -> None:
    """Clips per second with and without the server, alternating, and the times of requests."""
    torch.set_num_threads(args.threads)
    limits = Limits(max_batch_size=args.max_batch_size)
    size: Size = args.judge or (args.width, args.layers)
    reward = judge_of(size)
    reward.batch_size = args.max_batch_size
    latents = clips_for(reward, args.clips)
    with started(serve_judge, (size, limits, args.threads)) as (address, _):
        client = ScoreClient(address, space=reward.space, clips_per_request=1)
        client(latents[: 2 * args.max_batch_size])  # warm
        rows = [(offline(reward, latents), served(client, latents, args)) for _ in range(3)]
        client.close()
    for alone, (scores, times) in rows:
        spread = alone[0].std().item()
        worst = (alone[0] - scores).abs().max().item() / spread
        print(
            f"offline {len(latents) / alone[1]:.1f} clips/s, served "
            f"{len(latents) / times[0]:.1f} clips/s, ratio {alone[1] / times[0]:.2f}; requests p50 "
            f"{quantile(times[1], 50) * 1e3:.0f} ms, p99 {quantile(times[1], 99) * 1e3:.0f} ms; "
            f"largest difference {worst:.1e} of the scores' std"
        )
    ratio = statistics.median(alone[1] / times[0] for alone, (_, times) in rows)
    print(f"median ratio {ratio:.2f} with {args.clients} clients, {args.threads} threads each side")


def clips_for(reward: GTSVJReward, count: int) -> Tensor:
    """Different clips: noise, or valid latents of the judge."""
    if reward.config.geometry is None:
        return torch.randn(count, 5, 16, 16, 24)
    one = noise(reward).clips
    return one * (1 + 0.1 * torch.randn(count, *one.shape[1:]))


def offline(reward: GTSVJReward, latents: Tensor) -> tuple[Tensor, float]:
    """Scores and seconds without a server."""
    began = time.perf_counter()
    with torch.no_grad():
        scores = reward(latents, space=reward.space)
    return scores, time.perf_counter() - began


def served(
    client: ScoreClient, latents: Tensor, args: argparse.Namespace
) -> tuple[Tensor, tuple[float, list[float]]]:
    """Scores from many clients at once, seconds in all, and seconds of each request."""

    def ask(clip: Tensor) -> tuple[Tensor, float]:
        began = time.perf_counter()
        return client(clip[None]), time.perf_counter() - began

    began = time.perf_counter()
    with ThreadPoolExecutor(args.clients) as pool:
        answers = list(pool.map(ask, latents))
    seconds = time.perf_counter() - began
    return torch.cat([scores for scores, _ in answers]), (seconds, [x for _, x in answers])


def quantile(values: list[float], percent: int) -> float:
    """Nearest rank."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def memory(args: argparse.Namespace) -> None:
    """Resident memory of the server's process as requests go by."""
    latents = torch.randn(1, 3, 16, 4, 6)
    request = ScoreRequest(latents=latents, space_id=SPACE.id, space=SPACE)
    good = write_request(request)
    faulty = [good[:-7], good.replace(b'"F32"', b'"F64"'), b"", bytes(200_000)]
    numbers, statuses = count(), Counter[int]()
    sizes: dict[int, float] = {}
    headers = {"content-type": CONTENT_TYPE, VERSION_HEADER: VERSION}
    with started(serve_judge, ((32, 3), Limits(), args.threads)) as (address, pid):
        server = psutil.Process(pid)

        def ask(client: httpx.Client) -> None:
            while (number := next(numbers)) < 10_000:
                if number % 1000 == 0:
                    sizes[number] = server.memory_info().rss / 2**20
                body = faulty[number // 10 % 4] if number % 10 == 0 else good
                statuses[client.post(PATH, content=body).status_code] += 1

        client = httpx.Client(base_url=address, headers=headers, trust_env=False)
        with client, ThreadPoolExecutor(args.clients) as pool:
            list(pool.map(ask, [client] * args.clients))
        sizes[10_000] = server.memory_info().rss / 2**20
    print(", ".join(f"{number}: {mib:.1f} MiB" for number, mib in sorted(sizes.items())))
    print(f"growth from 1,000 to 10,000: {100 * (sizes[10_000] / sizes[1_000] - 1):.2f} %")
    print(f"statuses {dict(statuses)}")


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", action="store_true", help="memory instead of throughput")
    parser.add_argument("--judge", help="a bundled one; a random one by default")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--clips", type=int, default=256, help="per round")
    parser.add_argument("--max_batch_size", type=int, default=8)
    parser.add_argument("--width", type=int, default=256, help="of the judge; a multiple of 32")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1, help="of torch, in each process")
    args = parser.parse_args()
    memory(args) if args.memory else throughput(args)


if __name__ == "__main__":
    main()
