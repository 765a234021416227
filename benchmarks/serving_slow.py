"""A judge slower than its clients' timeout: requests answered, and scorings per clip.

    python -m benchmarks.serving_slow

The judge is tiny and sleeps `--seconds` for each clip, as one of 14B parameters computes for 2; all
times are shorter here, by the same factor. Each client asks once for `--clips` clips in one
request. What is scored more often than wanted was thrown away: its client had left.
"""

import argparse
import re
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import httpx
import torch

from benchmarks.serving import SPACE, random_judge, started
from gtsvj_reward.serving import ScoreClient, ScoreServerError
from gtsvj_reward.serving.app import create_app
from gtsvj_reward.serving.limits import Limits
from gtsvj_reward.serving.server import serve


def serve_slowly(limits: Limits, seconds: float, said: Connection) -> None:
    """The server's process."""
    torch.set_num_threads(1)
    reward = random_judge(32, 2)

    def wait(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        del module, arguments
        time.sleep(seconds * len(named["hidden_states"]))

    reward.judge.backbone.model.register_forward_pre_hook(wait, with_kwargs=True)
    serve(create_app(reward, limits=limits), port=0, announce=said.send)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--clips", type=int, default=8, help="per request")
    parser.add_argument("--seconds", type=float, default=0.1, help="per clip")
    parser.add_argument("--timeout", type=float, default=6.3, help="of an attempt")
    parser.add_argument("--retry_for", type=float, default=120.0)
    parser.add_argument("--max_queue_seconds", type=float, default=3.2)
    args = parser.parse_args()
    latents = torch.randn(args.clips, 3, 16, 4, 6)
    limits = Limits(max_queue_seconds=args.max_queue_seconds)

    def ask(client: ScoreClient) -> bool:
        try:
            client(latents)
        except ScoreServerError:
            return False
        return True

    with started(serve_slowly, (limits, args.seconds)) as (address, _):
        options = {"timeout": args.timeout, "retry_for": args.retry_for}
        client = ScoreClient(address, space=SPACE, clips_per_request=args.clips, **options)
        began = time.perf_counter()
        with client, ThreadPoolExecutor(args.clients) as pool:
            answered = sum(pool.map(ask, [client] * args.clients))
        seconds = time.perf_counter() - began
        text = httpx.get(f"{address}/metrics", trust_env=False).text
    found = re.search(r"gtsvj_batch_clips_sum ([0-9.e+]+)", text)
    scored = float(found[1]) if found else float("nan")
    wanted = args.clients * args.clips
    print(
        f"{answered} of {args.clients} clients answered in {seconds:.0f} s (scoring alone takes "
        f"{wanted * args.seconds:.0f} s), {scored:.0f} clips scored for {wanted} wanted"
    )


if __name__ == "__main__":
    main()
