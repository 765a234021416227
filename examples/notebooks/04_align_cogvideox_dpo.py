# %% [markdown]
# # Align CogVideoX with DPO
#
# DPO learns from pairs: of two clips of a prompt, which is the better one. The judge picks them
# among what the generator makes, and the model learns to denoise the better clip better, and the
# worse one worse, than it did before. No sampler is differentiated and nothing is decoded. All on a
# CPU, in minutes, with a generator of 1.8 million parameters (`docs/toy.md`). **How this works on
# CogVideoX-2B was not tried.**

# %%
import math
import os
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import diffusers
import torch
import transformers
from IPython.display import Image, display

from gtsvj_reward.alignment import (
    batches,
    decoded,
    mine_pairs,
    pair_errors,
    paired_difference,
    rollout,
)
from gtsvj_reward.losses import diffusion_dpo_loss
from gtsvj_reward.metrics import pairwise_accuracy
from gtsvj_reward.plotting import plot_alignment, plot_film_strips, plot_trajectory
from gtsvj_reward.toy.pipeline import UNSTEADY

sys.path.insert(0, "..")  # the example scripts are in the folder above
import dpo
from shared import make_run, parse

# The tests run all cells with small numbers: GTSVJ_FAST=1 in the environment.
FAST = os.environ.get("GTSVJ_FAST") == "1"
ITERATIONS, PROMPTS, PER_PROMPT = (1, 2, 3) if FAST else (10, 12, 8)
CHECKED = 2 if FAST else 32

OUT = Path("output-04")
OUT.mkdir(exist_ok=True)

# Loading bars, advice on modules of other models, and the name of an argument that older diffusers
# know by no other
diffusers.utils.logging.disable_progress_bar()
diffusers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
warnings.filterwarnings("ignore", "`torch_dtype` is deprecated")


def show(path):
    display(Image(filename=str(path), width=860))


def flags(settings):
    """Settings as the command line of a script."""
    words = []
    for name, value in settings.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


# %% [markdown]
# ## What is aligned with what
#
# The generator is `gtsvj-toy-unsteady`: it learned from clips half of which flicker or drift in
# colour, and so do its own. The judge's aspect *steadiness* picks the pairs. The run also watches
# what picks nothing: steadiness as measured in pixels, and how sure a detector is that a clip shows
# its caption.
#
# On a GPU, with a judge that you have trained, set `REAL_MODEL`. We had neither: **this switch has
# not been run.** `docs/alignment` has what fits in which memory, as computed.

# %%
REAL_MODEL = False

if REAL_MODEL:
    settings = {
        "pretrained_model": "zai-org/CogVideoX-2b",
        "reward": "path/to/your/judge",
        "eval_metrics": ["path/to/another/judge"],
        "prompts": "path/to/prompts.txt",
        "num_frames": 49,
        "height": 480,
        "width": 720,
        "num_inference_steps": 20,
        "guidance_scale": 6.0,
        "batch_size": 2,
        "learning_rate": 1e-4,
        "iterations": 50,
        "dtype": "bfloat16",
        "gradient_checkpointing": True,
    }
else:
    settings = {
        "pretrained_model": UNSTEADY,
        "reward": "gtsvj-toy-lora",
        "aspects": ["steadiness"],
        "batch_size": 4 if FAST else 16,
        "learning_rate": 1e-3,
        "iterations": ITERATIONS,
        "updates": 1 if FAST else 8,
        "device": "cpu",
    }
settings |= {
    "prompts_per_iteration": PROMPTS,
    "clips_per_prompt": PER_PROMPT,
    "beta": 2000,
    "min_margin": 0.0 if FAST else 0.5,
    "evaluation_clips": CHECKED,
    "evaluate_every": 5,
    "samples": 0,
}
args = parse(dpo.DPOArguments, flags(settings | {"output_dir": OUT / "by-hand"}))
run = make_run(args)
policy = run.policy

# %% [markdown]
# ## Pairs
#
# Several clips of each prompt, scored as latents; the best and the worst of a prompt make a pair,
# unless their rewards are too close to tell.

# %%
texts, keys = run.clips(0)
latents = torch.cat(
    [
        rollout(
            policy,
            policy.encode(texts[part]),
            keys[part],
            steps=args.num_inference_steps,
            eta=args.eta,
        ).clean
        for part in batches(len(texts), args.batch_size)
    ]
)
with torch.no_grad():
    rewards = torch.cat([run.scores(part) for part in latents.split(args.batch_size)])
pairs = mine_pairs(rewards, texts, min_margin=args.min_margin)
print(f"{len(pairs.chosen)} pairs of {len(texts)} clips, {pairs.dropped} prompts without one")
print(f"mean difference of the rewards in a pair: {sum(pairs.margins) / len(pairs.margins):.2f}")

# %%
few = sorted(range(len(pairs.chosen)), key=lambda index: -pairs.margins[index])
few = list(dict.fromkeys([few[0], few[len(few) // 2], few[-1]]))
rows = [
    (name, side[index])
    for index in few
    for name, side in (("better", pairs.chosen), ("worse", pairs.rejected))
]
show(
    plot_film_strips(
        [decoded(policy, run.unpadded(latents[[index]])[0]) for _, index in rows],
        labels=[f"{name}: {texts[index]}" for name, index in rows],
        scores=[rewards[index].item() for _, index in rows],
        score_name="reward",
        title="pairs of the largest, the median and the least difference",
        path=OUT / "pairs.png",
    )
)

# %% [markdown]
# What is learned can be no better than the pairs. In how many of them does the better clip score
# higher by the measures that had no part in picking it? A half is chance.

# %%
better, worse = list(pairs.chosen), list(pairs.rejected)
named = [texts[index] for index in better]
for name, metric in run.eval_metrics.items():
    sides = [metric(run.unpadded(latents[side]), named) for side in (better, worse)]
    agreement = pairwise_accuracy(*sides)
    low, high = agreement.interval()
    print(f"{name:10s} {agreement.accuracy:4.0%} of {len(better)}, 95% {low:.0%} to {high:.0%}")

# %% [markdown]
# ## One update, by hand
#
# Both clips of a pair get the same noise at the same level, and the policy denoises them with and
# without its adapter. The margin is how much better the policy has become on the better clip, less
# what it has gained on the worse one. A fresh adapter changes nothing: the loss is log 2.


# %%
def loss_of(pairs):
    """The loss of some pairs, each with a noise and a noise level of its own."""
    errors = pair_errors(
        policy,
        policy.encode([texts[index] for index in better[pairs]]),
        latents[better[pairs]],
        latents[worse[pairs]],
        keys=[(args.seed, 99, index) for index in better[pairs]],
        timesteps=range(policy.scheduler.config.num_train_timesteps),
    )
    return diffusion_dpo_loss(*errors, beta=args.beta)


for moment in ("before", "after"):
    losses, wins = [], 0
    for part in batches(len(better), max(1, args.batch_size // 2)):
        found = loss_of(part)
        losses += found.loss.tolist()
        wins += int((found.margin > 0).sum())
        if moment == "before":
            run.backward(found.loss.sum() / len(better))
    print(
        f"{moment}: mean loss {sum(losses) / len(losses):.4f} (log 2 is {math.log(2):.4f}), ",
        end="",
    )
    print(f"margin above 0 in {wins} of {len(better)} pairs")
    if moment == "before":
        run.update()

# %% [markdown]
# ## The run
#
# `examples/dpo.py` mines new pairs from the current policy at each iteration, and makes several
# updates with them. Pairs that people compared, or that `gtsvj rank --pairs` wrote, go in with
# `--pairs pairs.jsonl --latents folder`. The same call on the command line is
# `python examples/dpo.py --aspects steadiness --output_dir ...`.

# %%
run = policy = None  # or two generators are in memory
run = dpo.main(flags(settings | {"output_dir": OUT / "dpo"}))
show(plot_alignment(run.journal.entries, path=OUT / "curves.png"))

# %% [markdown]
# The curves come from checkups: the same prompts and seeds each time, none of which was trained on.
# On the left what is trained on, beside it what is only watched. Whether a difference is more than
# chance, the paired differences say.


# %%
def made_by(reference):
    """Prompts, latents and measures of the checkups' clips, by the policy or the untrained one."""
    with run.policy.reference() if reference else nullcontext():
        texts, latents = run.evaluation_clips()
    return texts, latents, run.measure(latents, texts)


texts, old, before = made_by(reference=True)
_, new, after = made_by(reference=False)
compared = {"reward": (after.proxy, before.proxy)}
compared |= {
    name: (values, before.eval_metrics[name]) for name, values in after.eval_metrics.items()
}
for name, (now, then) in compared.items():
    gap = paired_difference(now, then)
    print(
        f"{name:10s} {then.mean():+.3f} -> {now.mean():+.3f}   "
        f"change {gap.mean:+.3f}, 95% interval {gap.low:+.3f} to {gap.high:+.3f}"
    )

# %% [markdown]
# What the script logs of its pairs: `implicit_accuracy` is the share with a margin above 0,
# `chosen_error` and `rejected_error` what the policy's denoising errors are above its reference's.

# %%
names = ("reward", "pairs", "pair_margin", "implicit_accuracy", "chosen_error", "rejected_error")
print("iteration", *(f"{name:>17s}" for name in names))
learned = [entry for entry in run.journal.entries if "loss" in entry]
for entry in learned[:: max(1, len(learned) // 5)]:
    print(f"{entry['iteration']:9d}", *(f"{entry[name]:17.4f}" for name in names))

# %% [markdown]
# ## Before and after
#
# In 10 iterations the reward has risen; neither watched measure has by an interval that is clear of
# 0. Every third of the checkups' clips, whatever became of it:

# %%
third = -(-len(texts) // 3)
rows = [(name, index) for index in range(0, len(texts), third) for name in ("before", "after")]
clips = {"before": (old, before), "after": (new, after)}
show(
    plot_film_strips(
        [decoded(run.policy, clips[name][0][index]) for name, index in rows],
        labels=[f"{name}: {texts[index]}" for name, index in rows],
        scores=[clips[name][1].proxy[index].item() for name, index in rows],
        score_name="reward",
        title=f"the same prompts and seeds, before and after {run.done} iterations",
        path=OUT / "before-after.png",
    )
)

# %% [markdown]
# The judge's trajectory of the clip whose reward rose by the median amount, above the frames that
# it has after training.

# %%
median = int((after.proxy - before.proxy).argsort()[len(texts) // 2])
with torch.no_grad():
    lines = {
        name: run.reward.details(
            made[[median]], space=run.policy.space, fps=run.arguments.fps
        ).trajectory[0]
        for name, (made, _) in clips.items()
    }
show(
    plot_trajectory(
        decoded(run.policy, new[median]),
        lines,
        fps=run.arguments.fps,
        ylabel="steadiness, as the judge sees it" if not REAL_MODEL else "raw score",
        title=texts[median],
        path=OUT / "trajectory.png",
    )
)

# %% [markdown]
# ## Next
#
# `output-04/dpo/lora` is read by `pipe.load_lora_weights`. `05_reward_gradients.ipynb` follows the
# reward's gradient, and shows how that goes wrong. `docs/alignment` has formulas, guards and
# results over several seeds.
