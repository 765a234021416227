"""`gtsvj inspect`."""

from gtsvj_reward.cli.parsing import subparser


def inspect(argv: list[str]) -> int:
    """`gtsvj inspect`."""
    parser = subparser("inspect")
    parser.add_argument("checkpoint", help="judge: folder, bundled name or hub id")
    parser.add_argument(
        "--pipeline", help="check whether this pipeline fits: folder or bundled name"
    )
    args = parser.parse_args(argv)

    from gtsvj_reward.assets import folder_of
    from gtsvj_reward.judge import inspect as inspection, resolve_checkpoint

    checkpoint = resolve_checkpoint(args.checkpoint)
    print(inspection.describe_checkpoint(checkpoint))
    if args.pipeline is None:
        return 0
    pipeline = folder_of(args.pipeline)
    complaints = inspection.pipeline_complaints(checkpoint, pipeline)
    for complaint in complaints:
        print(f"does not fit {args.pipeline}: {complaint}")
    if not complaints:
        same = inspection.same_base(checkpoint, pipeline)
        base = "has the judge's base weights" if same else "has other weights than the judge's base"
        print(f"fits {args.pipeline}: same latents; its transformer {base}")
    return 1 if complaints else 0
