# %% [markdown]
# # Align a generator with a judge
#
# Four ways, by one setting: DDPO and GRPO raise the probability of steps that led to good clips,
# DPO learns from pairs of a better and a worse clip, and reward gradients follow the judge's
# gradient into the sampler. Nothing is decoded while training. All four run here for a few
# iterations, on a CPU, with a generator of 1.8 million parameters (`docs/toy.md`). **The numbers
# are from the toy world; no published generator was trained.**
#
# In Colab: upload this file, set `REPOSITORY` below, and run all cells.

# %%
import os
import subprocess
import sys
from importlib import invalidate_caches
from importlib.util import find_spec

REPOSITORY = ""  # in Colab: the address from which git clones the package

if find_spec("gtsvj_reward") is None:
    if not REPOSITORY:
        raise ModuleNotFoundError("gtsvj_reward is not installed: set REPOSITORY, or install it")
    subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, "gtsvj"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "./gtsvj[train,plot]"], check=True)
    invalidate_caches()
    os.chdir("gtsvj/examples/notebooks")

os.environ["TQDM_DISABLE"] = "1"  # no progress bars
FAST = os.environ.get("GTSVJ_FAST") == "1"  # small numbers, for tests

# %%
from IPython.display import HTML, Image, display

from gtsvj_reward.alignment import decoded, paired_difference
from gtsvj_reward.latents import preview
from gtsvj_reward.pages import gallery
from gtsvj_reward.plotting import plot_alignment
from gtsvj_reward.toy import FPS
from gtsvj_reward.toy.pipeline import UNSTEADY, load_pipeline, sample

sys.path.insert(0, "..")  # the example scripts are in the folder above
import ddpo
import dpo
import reward_gradients

METHOD = "gradients"  # ddpo, grpo, dpo or gradients
CHECKED = 2 if FAST else 16


def play(frames, labels):
    """Clips side by side, each with a line of text."""
    display(HTML(gallery([preview(clip, FPS) for clip in frames], labels)))


# %% [markdown]
# ## Generator, reward and metrics
#
# The generator is `gtsvj-toy-unsteady`; many of its clips flicker or drift in colour. The reward is
# one aspect of the bundled judge, *steadiness*. A run also evaluates two metrics that it is not
# trained on: steadiness in the pixels, and the caption's log-likelihood under a detector (in nats).
# If one of them falls while the reward rises, the guards print an alarm, and stop the run the
# second time.
#
# | method | script | one iteration |
# |---|---|---|
# | `ddpo` | `examples/ddpo.py` | sample, compare with earlier rewards of the prompt, one update |
# | `grpo` | `examples/ddpo.py` | the same, compared with the other clips of the prompt |
# | `dpo` | `examples/dpo.py` | sample, pair the best with the worst of a prompt, several updates |
# | `gradients` | `examples/reward_gradients.py` | sample, differentiate the last step, one update |
#
# On the command line the same settings are flags: `python examples/ddpo.py --reward gtsvj-toy
# ...`. `examples/alignment/` has settings for CogVideoX, Wan, LTX and HunyuanVideo on a GPU.

# %%
SCRIPTS = {"ddpo": ddpo, "grpo": ddpo, "dpo": dpo, "gradients": reward_gradients}
OWN = {
    "ddpo": {"iterations": 12, "clip_range": 1.0, "learning_rate": 1.5e-3},
    "grpo": {"iterations": 12, "clip_range": 1.0, "learning_rate": 1.5e-3, "advantages": "group"},
    "dpo": {"iterations": 5, "updates": 4},
    "gradients": {"iterations": 24, "clips_per_prompt": 1, "evaluate_every": 8},
}
COMMON = {
    "pretrained_model": UNSTEADY,
    "reward": "gtsvj-toy",
    "aspects": "steadiness",
    "device": "cpu",
    "prompts_per_iteration": 8,
    "clips_per_prompt": 4,
    "batch_size": 16,
    "evaluation_clips": CHECKED,
    "evaluate_every": 100,
    "samples": 0,
}
if FAST:
    COMMON |= {"prompts_per_iteration": 2, "clips_per_prompt": 2, "batch_size": 4}
    OWN = {name: own | {"iterations": 1} for name, own in OWN.items()}


def align(method):
    """A run of one method, with its adapter, its checkups and its journal."""
    settings = COMMON | OWN[method] | {"output_dir": f"output-03/{method}"}
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return SCRIPTS[method].main(words)


def compared(run):
    """How much each measure changed from the first checkup to the last, on the same seeds."""
    first, last = run.guards.checkups[0], run.guards.checkups[-1]
    pairs = {"reward": (last.proxy, first.proxy)}
    pairs |= {n: (values, first.eval_metrics[n]) for n, values in last.eval_metrics.items()}
    for name, (now, then) in pairs.items():
        gap = paired_difference(now, then)
        print(
            f"    {name:10s} {then.mean():+.2f} -> {now.mean():+.2f}, change {gap.mean:+.2f}, "
            f"95% interval {gap.low:+.2f} to {gap.high:+.2f}"
        )


# %% [markdown]
# ## One run

# %%
run = align(METHOD)
print(f"{METHOD}, {run.done} iterations")
compared(run)
display(Image(str(plot_alignment(run.journal.entries, path="curves.png")), width=860))

# %% [markdown]
# The curves are of checkups: the same prompts and seeds each time, sampled without noise. On the
# left is the reward, beside it are the metrics that are only evaluated.
#
# ## Before and after

# %%
with run.policy.reference():
    texts, before = run.evaluation.clips()
_, after = run.evaluation.clips()
few = range(min(4, CHECKED))
for name, clips in (("before", before), ("after", after)):
    play([decoded(run.policy, clips[i]) for i in few], [f"{name}: {texts[i]}" for i in few])

# %% [markdown]
# The reward rose by 2.59 of its standard deviations, steadiness in the pixels by 0.13 nats:
# 12% less unrest. The clips look nearly the same: most of the gain is not visible in the pixels.
# The caption's change of -0.31 is not significant with 16 clips. Watch metrics that are not
# trained on: a higher reward does not mean better clips.
#
# ## The other methods
#
# The same reward, prompts and checkups. The numbers of iterations differ, and so does the work in
# each, so this is not a ranking.

# %%
for method in [name for name in SCRIPTS if name != METHOD]:
    other = align(method)
    print(f"{method}, {other.done} iterations")
    compared(other)

# %% [markdown]
# After so few iterations the policy gradients and DPO have raised the reward by 0.03 to 0.07, and
# no change of the caption is significant. They are slower, and use no gradient of the judge.
#
# ## Use the adapter
#
# `lora` is the adapter of the last checkpoint, `lora-sound` that of the last checkup without an
# alarm, both in the format of diffusers.

# %%
pipe = load_pipeline(UNSTEADY)
pipe.load_lora_weights(f"output-03/{METHOD}/lora-sound")
latents = sample(pipe, texts[:2], range(2), steps=5, guidance=1.0)
play([decoded(run.policy, clip) for clip in latents], texts[:2])

# %% [markdown]
# ## Next
#
# `docs/alignment` has formulas, guards and results over several seeds. A reward that reads prompts
# helps to preserve captions: `04_prompts.ipynb`.
