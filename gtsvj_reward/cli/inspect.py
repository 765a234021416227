"""`gtsvj inspect`."""

from pathlib import Path

from gtsvj_reward.cli.parsing import subparser


def inspect(argv: list[str]) -> int:
    """`gtsvj inspect`."""
    parser = subparser("inspect")
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder")
    parser.add_argument("--pipeline", type=Path, help="folder of a pipeline: does it fit?")
    args = parser.parse_args(argv)

    from gtsvj_reward.judge import inspect as inspection

    print(inspection.describe_checkpoint(args.checkpoint))
    if args.pipeline is None:
        return 0
    complaints = inspection.pipeline_complaints(args.checkpoint, args.pipeline)
    for complaint in complaints:
        print(f"does not fit {args.pipeline}: {complaint}")
    if not complaints:
        same = inspection.same_base(args.checkpoint, args.pipeline)
        base = "holds the judge's base weights" if same else "has other weights than the judge's"
        print(f"fits {args.pipeline}: same latents; its transformer {base}")
    return 1 if complaints else 0
