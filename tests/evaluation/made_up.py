"""Made-up comparisons and scores."""

import random

from gtsvj_reward.annotations import Comparison, Comparisons
from gtsvj_reward.evaluation import EvaluationSettings, ScoreTable

QUICK = EvaluationSettings(resamples=12)

FAST = EvaluationSettings(resamples=1)  # where intervals do not matter

MODELS = ("gen a", "gen b", "gen c")


def made_up(count=60, *, prompts=12, dimensions=("VQ", "MQ", "overall"), seed=0):
    """Comparisons of generators' videos on some prompts, a third of them ties; some unlabelled."""
    draw = random.Random(seed)
    rows = []
    for index in range(count):
        prompt = index % prompts
        first, second = draw.sample(MODELS, 2)
        labels = {
            name: draw.choice((1, -1, 0)) for name in dimensions if draw.random() < 0.9 or index < 3
        }
        rows.append(
            Comparison(
                row=f"row {index}",
                video_a=f"videos/{first}/{prompt}.mp4",
                video_b=f"videos/{second}/{prompt}.mp4",
                labels=labels,
                prompt=f"prompt {prompt}",
                model_a=first,
                model_b=second,
            )
        )
    return Comparisons(name="made up", rows=tuple(rows), dimensions=tuple(dimensions))


def made_up_scores(comparisons, *, seed=1, aspects=("clear", "focus")):
    """Scores rounded to 0.1, so that some collide, for every video."""
    draw = random.Random(seed)
    names = ["reward", "raw", *(f"aspect:{name}" for name in aspects)]
    columns = {
        name: {video: round(draw.gauss(0, 0.4), 1) for video in comparisons.videos()}
        for name in names
    }
    return ScoreTable(name="scorer", columns=columns)
