"""The training reward, as the command line names it: judges, prompt score, functions."""

import importlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gtsvj_reward.judge import JudgeConfig
from gtsvj_reward.reward import AnyReward, GTSVJReward, WeightedReward

PROMPT_SCORE = "prompt-score"
"""Name of the generator's own `PromptScore`."""
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Term:
    """A reward and its weight in the sum."""

    name: str
    """A judge, `prompt-score`, or `module:function`."""
    weight: float

    @property
    def is_function(self) -> bool:
        """Whether it names a user's function."""
        return FUNCTION.fullmatch(self.name) is not None


def reward_terms(words: Sequence[str]) -> tuple[Term, ...]:
    """The terms of a sum, each `NAME` or `NAME=WEIGHT`; without a weight it is 1.

    Raises:
        ValueError: for no word, a name that is empty or comes twice, or a weight of 0.
    """
    terms = []
    for word in words:
        name, equals, last = word.rpartition("=")
        weight = number(last) if equals else None
        terms.append(Term(word, 1.0) if weight is None else Term(name, weight))
    names = [term.name for term in terms]
    if not names or not all(names) or len(set(names)) < len(names):
        raise ValueError(f"expected different rewards, each NAME or NAME=WEIGHT, got {list(words)}")
    idle = [term.name for term in terms if term.weight == 0]
    if idle:
        raise ValueError(f"the weight of {idle[0]!r} is 0: leave it out, or put it in eval_metrics")
    return tuple(terms)


def number(text: str) -> float | None:
    """A number, or None for other text, as in a path with an equals sign."""
    try:
        return float(text)
    except ValueError:
        return None


def load_function(name: str) -> AnyReward:
    """A user's function, `module:function`; see `FunctionReward` for how it is called.

    Modules of the current folder are found too, after those that are installed: the folder stays on
    the path, since a module may import its neighbours later.

    Raises:
        ValueError: if there is no such module or function, or a module of the same name hides that
            of the current folder.
    """
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        loaded = importlib.import_module(module)
        own = Path(here, *module.split(".")).with_suffix(".py")
        if own.exists() and not own.samefile(loaded.__file__ or here):
            raise ValueError(
                f"`{module}` is {loaded.__file__} here, which hides {own}: rename your module"
            )
        found = getattr(loaded, function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"no reward {name!r}: {error}. Name a function, MODULE:FUNCTION, of a module in the "
            f"current folder ({here}) or an installed one; it takes the arguments of a GTSVJReward "
            "and returns one score per clip"
        ) from error
    if not callable(found):
        raise ValueError(f"{name!r} is a {type(found).__name__}, expected a function")
    made: AnyReward = found
    return made


def reward_of(
    terms: Sequence[Term],
    judge: Callable[[str], GTSVJReward],
    prompt_score: Callable[[], AnyReward],
) -> AnyReward:
    """The training reward: the only term if its weight is 1, else a weighted sum.

    Args:
        terms: of the sum.
        judge: loads a judge by name.
        prompt_score: makes the generator's prompt score.
    """
    parts: list[tuple[str, AnyReward, float]] = []
    for term in terms:
        if term.name == PROMPT_SCORE:
            found: AnyReward = prompt_score()
        else:
            found = load_function(term.name) if term.is_function else judge(term.name)
        parts.append((term.name, found, term.weight))
    if len(parts) == 1 and parts[0][2] == 1:
        return parts[0][1]
    return WeightedReward(parts)


def judges_of(reward: AnyReward) -> dict[str, GTSVJReward]:
    """The judges in a reward that `reward_of` made, by name."""
    match reward:
        case GTSVJReward():
            return {"reward": reward}
        case WeightedReward():
            parts = reward.rewards.items()
            return {name: part for name, part in parts if isinstance(part, GTSVJReward)}
        case _:
            return {}


def refuse_images(config: JudgeConfig, name: str) -> None:
    """Reject a judge that reads reference images, which no policy has.

    Args:
        config: the judge's.
        name: of the judge, for the message.

    Raises:
        ValueError: with what to use instead.
    """
    if config.image_input == "image":
        raise ValueError(
            f"{name} reads reference images (image_input='image'), and a policy makes its clips "
            "from prompts alone: give a judge without images on the text-to-video model of the "
            "same VAE, which scores the same latents"
        )


def refitted_judge(reward: AnyReward) -> tuple[str, GTSVJReward]:
    """The one moment judge in a reward, and its name.

    Raises:
        ValueError: for none, or several.
    """
    judges = judges_of(reward).items()
    found = [(name, judge) for name, judge in judges if judge.config.readout == "moments"]
    if len(found) != 1:
        raise ValueError(
            f"`refit_every` refits one judge with readout='moments', `reward` has {len(found)}: "
            f"{[name for name, _ in found]}"
        )
    return found[0]


def with_judge(reward: AnyReward, name: str, judge: GTSVJReward) -> AnyReward:
    """The same reward with another judge in place of one that `judges_of` names."""
    match reward:
        case WeightedReward():
            parts = [
                (other, judge if other == name else part, reward.weights[other])
                for other, part in reward.rewards.items()
            ]
            return WeightedReward(parts)
        case _:
            return judge
