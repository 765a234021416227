# %% [markdown]
# # Align CogVideoX with DDPO
#
# A policy gradient needs clips, their scores, and the probability of the steps that made them. It
# needs no gradient of the judge, and nothing is decoded. Here is one iteration written out, then a
# run of `examples/ddpo.py`, then what became of the clips. All on a CPU, in minutes, with a
# generator of 1.8 million parameters (`docs/toy.md`). **How this works on CogVideoX-2B was not
# tried.**

# %%
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
    log_probability,
    paired_difference,
    rollout,
    transition,
)
from gtsvj_reward.losses import clipped_policy_loss
from gtsvj_reward.metrics import spearman
from gtsvj_reward.plotting import plot_alignment, plot_film_strips, plot_trajectory
from gtsvj_reward.reward import group_z_scores
from gtsvj_reward.toy.pipeline import UNSTEADY, decode, load_pipeline, sample

sys.path.insert(0, "..")  # the example scripts are in the folder above
import ddpo
from shared import make_run, parse

# The tests run all cells with small numbers: GTSVJ_FAST=1 in the environment.
FAST = os.environ.get("GTSVJ_FAST") == "1"
ITERATIONS, PROMPTS, PER_PROMPT = (1, 2, 2) if FAST else (20, 8, 4)
CHECKED = 2 if FAST else 32

OUT = Path("output-03")
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
# colour, and so do its own. The reward is one aspect of the bundled judge, *steadiness*. The run
# also watches what it is not trained on: steadiness as measured in pixels, and how sure a detector
# is that a clip shows its caption.
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
        "batch_size": 1,
        "learning_rate": 3e-4,
        "clip_range": 1e-4,
        "iterations": 200,
        "dtype": "bfloat16",
        "gradient_checkpointing": True,
        "evaluate_every": 20,
    }
else:
    settings = {
        "pretrained_model": UNSTEADY,
        "reward": "gtsvj-toy-lora",
        "aspects": ["steadiness"],
        "batch_size": PROMPTS * PER_PROMPT // 2,
        "learning_rate": 1.5e-3,
        "clip_range": 1.0,
        "iterations": ITERATIONS,
        "device": "cpu",
        "evaluate_every": 10,
    }
settings |= {
    "prompts_per_iteration": PROMPTS,
    "clips_per_prompt": PER_PROMPT,
    "evaluation_clips": CHECKED,
    "samples": 0,
}
args = parse(ddpo.DDPOArguments, flags(settings | {"output_dir": OUT / "by-hand"}))
run = make_run(args)
policy = run.policy
trained = sum(parameter.numel() for parameter in run.parameters.values())
frozen = sum(p.numel() for p in policy.transformer.parameters() if not p.requires_grad)
print(f"{trained:,} parameters are trained, of an adapter; {frozen:,} are frozen")

# %% [markdown]
# Does the reward agree with what is only watched? Rank correlations over clips of the untrained
# generator. A policy gradient can improve a measure only as far as the reward follows it.

# %%
texts, latents = run.evaluation_clips()
start = run.measure(latents, texts)
for name, values in start.eval_metrics.items():
    print(f"reward and {name}: {spearman(start.proxy, values):+.2f} over {len(values)} clips")

# %% [markdown]
# ## One iteration, by hand
#
# **Sample.** Stochastic DDIM: each step draws from a normal distribution, so that a clip has a
# density. The last step adds no noise, has no density, and is left out.

# %%
texts, keys = run.clips(0)
prompts = [policy.encode(texts[part]) for part in batches(len(texts), args.batch_size)]
parts = list(batches(len(texts), args.batch_size))
made = [
    rollout(policy, one, keys[part], steps=args.num_inference_steps, eta=args.eta)
    for one, part in zip(prompts, parts, strict=True)
]
print("timesteps:        ", *made[0].timesteps)
print("log-probabilities:", *(f"{values[0]:.3f}" for values in made[0].log_probabilities.values()))

# %% [markdown]
# **Score, and compare.** Rewards of different prompts are not comparable: what counts is whether a
# clip did better than others of its prompt. Below are the clips of the first prompt, as sampled,
# and their advantages.

# %%
clean = torch.cat([batch.clean for batch in made])
with torch.no_grad():
    rewards = run.scores(clean)
advantages = group_z_scores(rewards, texts).clamp(-args.advantage_clip, args.advantage_clip)
order = advantages[:PER_PROMPT].argsort(descending=True).tolist()
show(
    plot_film_strips(
        [decoded(policy, run.unpadded(clean[[index]])[0]) for index in order],
        labels=[f"reward {rewards[index]:+.2f}" for index in order],
        scores=[advantages[index].item() for index in order],
        score_name="advantage",
        title=f"{PER_PROMPT} clips of {texts[0]!r}",
        path=OUT / "group.png",
    )
)

# %% [markdown]
# **Learn.** Each noisy step is run once more, with gradients. The ratio of its likelihoods now and
# when it was drawn is exactly 1 before the first update, since nothing has changed; its gradient
# makes steps of good clips likelier.


# %%
def log_ratios(backward=False):
    """How much likelier each clip's steps have become, mean over steps (clip)."""
    found = []
    for batch, advantage in zip(made, advantages.split(args.batch_size), strict=True):
        changes = []
        for index, old in batch.log_probabilities.items():
            here, timestep = batch.path[index], batch.timesteps[index]
            with torch.set_grad_enabled(backward):
                step = transition(policy, here, timestep, batch.prompts, args.eta)
                now = log_probability(batch.path[index + 1], step.mean, step.std)
            if backward:
                loss = clipped_policy_loss(now, old, advantage, args.clip_range).loss.mean()
                run.backward(loss / (len(made) * len(batch.log_probabilities)))
            changes.append((now - old).detach())
        found.append(torch.stack(changes).mean(dim=0))
    return torch.cat(found)


before = log_ratios(backward=True)
print(f"largest change of a log-likelihood before the update: {before.abs().max():g}")
print(f"norm of the gradient: {run.update():.2g}")
after = log_ratios()
good, bad = after[advantages > 0].mean(), after[advantages < 0].mean()
print(f"after it: {good:+.1e} for clips above the mean, {bad:+.1e} for those below")

# %% [markdown]
# ## The run
#
# `examples/ddpo.py` is that loop with the rest around it: checkpoints, several processes, the
# divergence from the reference, checkups. It normalises rewards by the latest ones of each prompt
# over iterations (`--advantages group` is what was done above, GRPO). The same call on the command
# line is `python examples/ddpo.py --aspects steadiness --output_dir ...`.

# %%
run = policy = None  # or two generators are in memory
run = ddpo.main(flags(settings | {"output_dir": OUT / "ddpo"}))
show(plot_alignment(run.journal.entries, path=OUT / "curves.png"))

# %% [markdown]
# The curves come from checkups: the same prompts and seeds each time, sampled without noise, none
# of which was trained on. On the left what is trained on, beside it what is only watched. Whether a
# difference is more than chance, the paired differences say.


# %%
def made_by(reference):
    """Prompts, latents and measures of the checkups' clips, by the policy or the untrained one."""
    with run.policy.reference() if reference else nullcontext():
        texts, latents = run.evaluation_clips()
    return texts, latents, run.measure(latents, texts)


texts, old, before = made_by(reference=True)
_, new, after = made_by(reference=False)
pairs = {"reward": (after.proxy, before.proxy)}
pairs |= {name: (values, before.eval_metrics[name]) for name, values in after.eval_metrics.items()}
for name, (now, then) in pairs.items():
    gap = paired_difference(now, then)
    print(
        f"{name:10s} {then.mean():+.3f} -> {now.mean():+.3f}   "
        f"change {gap.mean:+.3f}, 95% interval {gap.low:+.3f} to {gap.high:+.3f}"
    )

# %% [markdown]
# ## Before and after
#
# In 20 iterations the reward has risen, and neither watched measure by an interval that is clear
# of 0: a policy gradient is slow, and on this start the judge's order agrees little with pixels.
# Accordingly, little is to be seen. Every third of the checkups' clips, whatever became of it:

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
            latents[[median]], space=run.policy.space, fps=run.arguments.fps
        ).trajectory[0]
        for name, (latents, _) in clips.items()
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
# ## What is left
#
# The adapter, in the format of diffusers. `lora` is that of the last checkpoint, `lora-sound` that
# of the last checkup at which the guards saw nothing wrong.

# %%
if not REAL_MODEL:
    pipe = load_pipeline(UNSTEADY)
    pipe.load_lora_weights(OUT / "ddpo" / "lora")
    latents = sample(pipe, texts[:2], [0, 1], steps=args.num_inference_steps, guidance=1.0)
    with torch.no_grad():
        scores = run.reward(latents, space=run.policy.space, fps=run.arguments.fps)
    show(
        plot_film_strips(
            decode(pipe, latents),
            labels=texts[:2],
            scores=scores.tolist(),
            score_name="reward",
            title="by the pipeline, with the adapter loaded",
            path=OUT / "loaded.png",
        )
    )

# %% [markdown]
# ## Next
#
# `04_align_cogvideox_dpo.ipynb` learns from pairs, `05_reward_gradients.ipynb` from the reward's
# gradient, and shows how that goes wrong. `docs/alignment` has formulas, guards and results over
# several seeds.
