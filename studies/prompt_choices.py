"""The best of 10 by quality and prompt score, repeated with more, new prompts.

    python -m studies.prompt_choices

Each part is one JSON file in `--results`; what is there is not run again. Then the page of
`studies.prompts` is written anew.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gtsvj_reward import GTSVJReward, PromptScore
from gtsvj_reward.demo.candidates import generate
from gtsvj_reward.files import write_text
from gtsvj_reward.reward import text_of
from gtsvj_reward.toy.detector import caption_log_probability, load_detector
from gtsvj_reward.toy.pipeline import UNSTEADY, load_pipeline
from studies.own_clips import prompts_of
from studies.prompts import OWN, ROOT, SIZES
from studies.prompts_page import write_page

PARTS = 9
LOTS, CANDIDATES = 3, 10
"""Lots of candidates of each prompt, and candidates of each lot."""
FIRST_SEED = 700_000
"""First seed of the candidates' noise; far from those of all other clips."""
RANKED_BEFORE = 5 * SIZES["prompts"]


def new_prompts() -> list[str]:
    """The captions of the world whose candidates the first run did not rank, 81 of them."""
    every = prompts_of("test", {**OWN, "test_prompts": 96})
    return every[RANKED_BEFORE:]


def run(part: int) -> dict[str, list[dict[str, Any]]]:
    """Candidates of some prompts: each way of scoring, and the detected captions."""
    prompts, judge = new_prompts()[part::PARTS], load_pipeline()
    quality = GTSVJReward.from_pretrained("gtsvj-toy", backbone=judge.transformer, batch_size=16)
    score, detector = PromptScore(judge), load_detector()
    start = FIRST_SEED + 1000 * part
    found: dict[str, list[dict[str, Any]]] = {}
    lot = generate(load_pipeline(UNSTEADY), prompts, LOTS * CANDIDATES, start, f"part {part}")
    for number, prompt in enumerate(prompts):
        rows, texts = lot.rows(number), [prompt] * (LOTS * CANDIDATES)
        with torch.no_grad():
            values = {
                "score": score(lot.latents[rows], text=text_of(judge, texts)),
                "quality": quality(lot.latents[rows]),
                "caption": caption_log_probability(detector, lot.frames[rows], texts),
                "steadiness": lot.steadiness[rows],
            }
        found[prompt] = [
            {name: row.view(LOTS, CANDIDATES)[each].tolist() for name, row in values.items()}
            for each in range(LOTS)
        ]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "studies/prompt_results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/study/prompts.md")
    parser.add_argument("--parts", type=int, nargs="+", default=list(range(PARTS)))
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for part in args.parts:
        file = args.results / f"choices-{part}.json"
        if not file.exists():
            began = time.process_time()
            prompts = run(part)
            seconds = round(time.process_time() - began)
            write_text(file, json.dumps({"prompts": prompts, "cpu_seconds": seconds}) + "\n")
    write_page(args.results, args.page)


if __name__ == "__main__":
    main()
