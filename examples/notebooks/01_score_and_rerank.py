# %% [markdown]
# # Score clips and keep the best
#
# A judge scores the latents of a video generator before the VAE decodes them. This notebook ranks
# clips of one prompt, measures the gain, shows when a fault happens in a clip, and which faults the
# judge misses. It runs on a CPU with the bundled toy models (`docs/toy.md`). **The numbers are from
# the toy world; no published generator was used.**
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
import torch
from IPython.display import HTML, Image, display

from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.alignment import paired_difference
from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.integrations.diffusers import best_of_n, successive_halving
from gtsvj_reward.latents import preview
from gtsvj_reward.metrics import pairwise_accuracy
from gtsvj_reward.pages import gallery
from gtsvj_reward.plotting import plot_trajectory
from gtsvj_reward.toy import FAULTS, FPS, captions
from gtsvj_reward.toy.corpus import UNSEEN, ClipSpec, encode_frames
from gtsvj_reward.toy.degradations import noise
from gtsvj_reward.toy.detector import caption_log_probability, load_detector
from gtsvj_reward.toy.measures import steadiness
from gtsvj_reward.toy.pipeline import decode, load_pipeline, sample

CANDIDATES, STEPS = (4, 2) if FAST else (16, 10)
PROMPTS, SCENES = (2, 2) if FAST else (32, 16)


def play(frames, labels):
    """Clips side by side, each with a line of text."""
    display(HTML(gallery([preview(clip, FPS) for clip in frames], labels)))


# %% [markdown]
# ## A generator, and a judge on its weights
#
# The generator is a `CogVideoXPipeline` of 1.8 million parameters. The judge reads the hidden
# states of the same frozen transformer, so there is no second model in memory. With your own
# generator these are the same three lines, with your pipeline and the folder of your judge
# (`docs/score.md`).

# %%
pipe = load_pipeline()
reward = GTSVJReward.from_pretrained("gtsvj-toy", transformer=pipe.transformer)
space = LatentSpace.from_pipeline(pipe)

# %% [markdown]
# ## Best of n
#
# `best_of_n` generates all candidates as latents, scores them, and decodes only the winner.
# Higher is better; 0 is the mean of the clips that the judge was fitted to, and 1 is their
# standard deviation. The judge also gives the uncertainty of each score.

# %%
prompt = "two yellow circles falling"
call = {"num_frames": 17, "height": 64, "width": 64, "fps": FPS, "guidance_scale": 3.0}
call |= {"num_inference_steps": STEPS, "batch_size": 8}
best = best_of_n(pipe, reward, prompt, CANDIDATES, keep_latents="all", **call)
order = best.scores.argsort(descending=True).tolist()
for index in order:
    aspects = ", ".join(f"{name} {v[index]:.1f}" for name, v in best.details.aspects.items())
    sure = best.details.uncertainty[index]
    print(f"seed {best.seeds[index]:2d}: {best.scores[index]:+.2f} ± {sure:.2f}   ({aspects})")

# %%
ends = list(dict.fromkeys(order[:3] + order[-3:]))
play(
    decode(pipe, best.latents[ends]),
    [f"seed {best.seeds[index]}: {best.scores[index]:+.2f}" for index in ends],
)

# %% [markdown]
# `successive_halving` saves denoising steps: it scores the model's prediction after some steps,
# and finishes only the better half. A judge of clean latents is less accurate on such predictions,
# so compare the winners for your own generator.

# %%
halved = successive_halving(
    pipe, reward, prompt, CANDIDATES, look_at=STEPS // 2, finish=CANDIDATES // 2, **call
)
place = order.index(halved.winners[0]) + 1
print(f"{halved.denoising_steps} steps in place of {CANDIDATES * STEPS}: ", end="")
print(f"its winner is number {place} of {CANDIDATES} in the order above")

# %% [markdown]
# ## How much better is the choice?
#
# Two metrics that are independent of the judge: how steady the colours are in the pixels, and the
# log-likelihood of the caption under a detector, in nats. For each prompt, the best and the
# worst of the candidates are compared with the first, which is a random clip.

# %%
detector = load_detector()
picked = torch.randperm(len(captions()), generator=torch.Generator().manual_seed(0))[:PROMPTS]
texts = [captions()[index] for index in picked.tolist()]
chosen = {"first": [], "best": [], "worst": []}
for text in texts:
    latents = sample(pipe, [text] * 6, range(6), steps=STEPS)
    scores = reward(latents, space=space, fps=FPS)
    places = (0, int(scores.argmax()), int(scores.argmin()))
    for clips, index in zip(chosen.values(), places, strict=True):
        clips.append(latents[index])

measured = {}
for name, clips in chosen.items():
    frames = torch.stack(decode(pipe, torch.stack(clips)))
    caption = caption_log_probability(detector, frames, texts)
    measured[name] = {"steadiness": steadiness(frames), "caption": caption}
for name in ("best", "worst"):
    for what, values in measured[name].items():
        gap = paired_difference(values, measured["first"][what])
        print(
            f"{name:5s} {what:10s} {gap.mean:+.2f}, 95% interval {gap.low:+.2f} to {gap.high:+.2f}"
        )

# %% [markdown]
# The best clip is steadier than a random clip, and the worst less steady; both intervals exclude
# 0. The best clip shows its caption less well: this judge does not read prompts.
# `04_prompts.ipynb` adds a reward that does.
#
# ## Which faults does it detect?
#
# Rendered scenes, each clean and with one strong fault (severity 0.8): the share of scenes in
# which the clean clip scores higher. Half is chance. The judge's labels had no colour drift,
# stutter or morphing.
#
# Of these three, stutter is detected in 69% of 16 scenes, and the interval includes chance. The
# clip below is the one on which the judge is most wrong.


# %%
def scored(frames):
    """What the judge says of clips in pixels."""
    with torch.no_grad():
        return reward.details(encode_frames(frames, pipe.vae, space), space=space, fps=FPS)


def drawn(faults):
    """The scenes in pixels, with some faults."""
    specs = [ClipSpec(f"{faults}-{index}", (501, index), faults) for index in range(SCENES)]
    return torch.stack([spec.draw() for spec in specs])


clean, faulty = drawn({}), {fault: drawn({fault: 0.8}) for fault in FAULTS}
scores = {fault: scored(frames).rewards for fault, frames in faulty.items()}
clean_scores = scored(clean)
for fault, values in scores.items():
    found = pairwise_accuracy(clean_scores.rewards, values)
    low, high = found.interval()
    labelled = "not in its labels" if fault in UNSEEN else "in its labels"
    print(f"{fault:13s} {labelled:18s} {found.accuracy:4.0%}, 95% interval {low:.0%} to {high:.0%}")

# %%
hardest = min(FAULTS, key=lambda fault: (clean_scores.rewards - scores[fault]).mean().item())
index = int((scores[hardest] - clean_scores.rewards).argmax())
play(
    [clean[index], faulty[hardest][index]],
    [
        f"clean: {clean_scores.rewards[index]:+.2f}",
        f"{hardest}: {scores[hardest][index]:+.2f}",
    ],
)

# %% [markdown]
# ## When does it happen?
#
# A clip's score is the mean of a trajectory with one value for each latent step. Here noise is put
# into frames 9 to 12 of a clean clip: the fourth of five steps.

# %%
damaged = clean[:1].clone()
damaged[0, 9:13] = noise(damaged[0, 9:13], 0.8, torch.Generator().manual_seed(0))
lines = {"clean": clean_scores.trajectory[0], "noisy": scored(damaged).trajectory[0]}
play([clean[0], damaged[0]], list(lines))
path = plot_trajectory(
    damaged[0], lines, fps=FPS, ylabel="raw score", title="noise after 1.1 s", path="trajectory.png"
)
display(Image(str(path), width=760))

# %% [markdown]
# ## Errors
#
# Latents of another VAE, a NaN, and a clip longer than any in training raise errors that say
# what to do.

# %%
broken = best.latents.clone()
broken[1, 0, 0, 0, 0] = float("nan")


def rejected(latents, of):
    """Print why the judge does not score some latents."""
    try:
        reward(latents, space=of)
    except ValueError as error:
        print(f"{type(error).__name__}: {error}\n")


rejected(best.latents, LatentSpace.from_vae(load_vae("gtsvj-demo-codec")))
rejected(broken, space)
rejected(torch.cat([best.latents, best.latents], dim=1), space)

# %% [markdown]
# ## Next
#
# `02_fit_and_label.ipynb` fits a judge to a generator. `gtsvj rank` does the same for folders of
# clips, and writes the pairs that DPO needs (`docs/score.md`).
