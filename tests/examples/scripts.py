"""Where the example scripts are, and settings of the smallest run."""

from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

SMALL = (  # noqa: SIM905
    "--iterations 2 --prompts_per_iteration 2 --clips_per_prompt 2 --batch_size 2 "
    "--num_inference_steps 2 --evaluation_clips 4 --evaluate_every 2 --save_every 1 --samples 0 "
    "--lora_rank 2 --device cpu"
).split()
"""Settings of the smallest run that has everything; the toy pipeline and judge are the defaults."""
