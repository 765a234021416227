# %% [markdown]
# # Reward gradients, and how they go wrong
#
# The judge is differentiable and reads latents, so its gradient can flow into the sampler without
# passing a decoder. It raises a reward fast, and exploits it as fast. Here a run goes on after the
# guards would have stopped it. All on a CPU, in minutes, with a generator of 1.8 million parameters
# (`docs/toy.md`). **How this works on CogVideoX-2B was not tried.**

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
from safetensors.torch import load_file

from gtsvj_reward.alignment import Guards, decoded, differentiable_sample, paired_difference
from gtsvj_reward.losses import reward_loss
from gtsvj_reward.plotting import plot_alignment, plot_film_strips, plot_trajectory
from gtsvj_reward.toy.pipeline import UNSTEADY

sys.path.insert(0, "..")  # the example scripts are in the folder above
import reward_gradients
from shared import make_run, parse

# The tests run all cells with small numbers: GTSVJ_FAST=1 in the environment.
FAST = os.environ.get("GTSVJ_FAST") == "1"
ITERATIONS, PROMPTS, EVERY = (2, 2, 1) if FAST else (40, 16, 5)
CHECKED = 2 if FAST else 32

OUT = Path("output-05")
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
# `guard_patience` 0 lets the run go on whatever the guards say. It is 2 by default, and should stay
# there.
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
        "learning_rate": 1e-4,
        "iterations": 100,
        "dtype": "bfloat16",
        "gradient_checkpointing": True,
        "guard_patience": 2,
    }
else:
    settings = {
        "pretrained_model": UNSTEADY,
        "reward": "gtsvj-toy-lora",
        "aspects": ["steadiness"],
        "batch_size": PROMPTS,
        "learning_rate": 1e-3,
        "iterations": ITERATIONS,
        "device": "cpu",
        "guard_patience": 0,
    }
settings |= {
    "prompts_per_iteration": PROMPTS,
    "clips_per_prompt": 1,
    "evaluation_clips": CHECKED,
    "evaluate_every": EVERY,
    "samples": 0,
}
args = parse(
    reward_gradients.RewardGradientArguments, flags(settings | {"output_dir": OUT / "by-hand"})
)
run = make_run(args)

# %% [markdown]
# ## The gradient, by hand
#
# Sampling runs to clean latents, the judge scores them, and `backward` goes through the judge into
# the last K denoising steps. Two clips, and the norm of the adapter's gradient for several K: the
# scripts' default is 1.

# %%
texts, keys = run.clips(0)
prompts = run.policy.encode(texts[:2])
total = args.num_inference_steps
for last in dict.fromkeys((1, 2, total)):
    latents = differentiable_sample(run.policy, prompts, keys[:2], steps=total, last=last)
    rewards = run.scores(latents)
    run.backward(reward_loss(rewards, reduction="mean"))
    norms = torch.stack([p.grad.norm() for p in run.parameters.values()])
    scored = ", ".join(f"{value:+.2f}" for value in rewards.tolist())
    print(f"K = {last}: rewards {scored}; norm of the gradient {norms.norm():.2f}")
    run.optimizer.zero_grad()

# %% [markdown]
# ## The run
#
# The same call on the command line is
# `python examples/reward_gradients.py --aspects steadiness --output_dir ...`. What the guards have
# to say appears as the run goes.

# %%
run = None  # or two generators are in memory
run = reward_gradients.main(flags(settings | {"output_dir": OUT / "run"}))
show(plot_alignment(run.journal.entries, path=OUT / "curves.png"))

# %% [markdown]
# The curves come from checkups: the same prompts and seeds each time, none of which was trained on.
#
# With the guards on, when would the run have stopped? They look at checkups only, so they can be
# asked again.

# %%
guards = Guards(patience=2)
for checkup in run.guards.checkups:
    report = guards.look(checkup)
    said = "stop" if report.stop else "diverged" if report.diverged else "sound"
    watched = ", ".join(f"{name} {v.mean():+.3f}" for name, v in checkup.eval_metrics.items())
    print(
        f"iteration {checkup.iteration:2d}: reward {checkup.proxy.mean():+.3f}, {watched}   {said}"
    )
    if report.stop:
        break

# %% [markdown]
# ## Three generators
#
# The untrained one, the adapter of the last checkup that the guards found sound (`lora-sound`), and
# the last. Paired differences from the untrained one, over the checkups' clips.


# %%
def measured(reference=False):
    """Latents and measures of the checkups' clips, by the policy or the untrained generator."""
    with run.policy.reference() if reference else nullcontext():
        texts, latents = run.evaluation_clips()
    return latents, run.measure(latents, texts)


texts, _ = run.evaluation_clips()
clips = {"before": measured(reference=True)}
newest = {name: tensor.clone() for name, tensor in run.policy.adapter().items()}
sound = load_file(OUT / "run" / "lora-sound" / "pytorch_lora_weights.safetensors")
run.policy.load_adapter({name.removeprefix("transformer."): t for name, t in sound.items()})
clips["sound"] = measured()
run.policy.load_adapter(newest)
clips["last"] = measured()

start = clips["before"][1]
for name in ("sound", "last"):
    found = clips[name][1]
    pairs = {"reward": (found.proxy, start.proxy)}
    pairs |= {key: (values, start.eval_metrics[key]) for key, values in found.eval_metrics.items()}
    for measure, (now, then) in pairs.items():
        gap = paired_difference(now, then)
        print(
            f"{name:5s}  {measure:10s} {then.mean():+.3f} -> {now.mean():+.3f}   "
            f"change {gap.mean:+.3f}, 95% interval {gap.low:+.3f} to {gap.high:+.3f}"
        )

# %% [markdown]
# The last generator lays one pattern over every clip below, and in two of the three the shape is
# gone. The reward never was higher, and it is not even wrong: the pattern holds still, so that
# steadiness in pixels has risen as well. Only the measure of what the reward does not look at has
# fallen. Watch measures of that kind.
#
# "Sound" means that nothing could be told yet, not that nothing had begun to fall: see the interval
# of the caption.

# %%
third = -(-len(texts) // 3)
rows = [(name, index) for index in range(0, len(texts), third) for name in clips]
show(
    plot_film_strips(
        [decoded(run.policy, clips[name][0][index]) for name, index in rows],
        labels=[f"{name}: {texts[index]}" for name, index in rows],
        scores=[clips[name][1].proxy[index].item() for name, index in rows],
        score_name="reward",
        title="the same prompts and seeds, every third of the checkups' clips",
        path=OUT / "before-after.png",
    )
)

# %% [markdown]
# The judge's trajectory of the clip whose reward rose by the median amount, above the frames that
# it has at the end.

# %%
median = int((clips["last"][1].proxy - start.proxy).argsort()[len(texts) // 2])
with torch.no_grad():
    lines = {
        name: run.reward.details(
            latents[[median]], space=run.policy.space, fps=run.arguments.fps
        ).trajectory[0]
        for name, (latents, _) in clips.items()
    }
show(
    plot_trajectory(
        decoded(run.policy, clips["last"][0][median]),
        lines,
        fps=run.arguments.fps,
        ylabel="steadiness, as the judge sees it" if not REAL_MODEL else "raw score",
        title=texts[median],
        path=OUT / "trajectory.png",
    )
)

# %% [markdown]
# ## What to do about it
#
# - Leave the guards on, and give them something to watch: `--eval_metrics` takes judges that had
#   other data or another base.
# - Stop early, and look at clips, not at rewards.
# - `--target` pulls rewards back to a value that real clips have; `--drift_weight` holds the policy
#   to its reference.
# - With a judge that is new, begin with `03_align_cogvideox_ddpo.ipynb` or
#   `04_align_cogvideox_dpo.ipynb`: they learn from clips that the generator makes by itself.
