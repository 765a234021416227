# %% [markdown]
# # Fit a judge to your generator, and label its clips
#
# A judge of moments is fitted in closed form: one forward pass of the frozen generator for each
# clip, then linear algebra. Here the first fit has no labels. Then a simulated person rates clips
# of the generator, and each refit takes seconds. It runs on a CPU with the toy models
# (`docs/toy.md`). **The numbers are those of the toy world; no published generator was used.**
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
import time

import torch
from IPython.display import HTML, display

from gtsvj_reward import GTSVJReward, JudgeConfig, LatentSpace, VideoJudge
from gtsvj_reward.alignment import paired_difference
from gtsvj_reward.demo.candidates import choose_prompts, generate
from gtsvj_reward.demo.story import simulated_ratings
from gtsvj_reward.judge import Aspect
from gtsvj_reward.latents import preview
from gtsvj_reward.metrics import spearman
from gtsvj_reward.pages import gallery
from gtsvj_reward.perturbations import PerturbationSampler
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy import FPS
from gtsvj_reward.toy.corpus import ClipSpec, encode_frames
from gtsvj_reward.toy.pipeline import UNSTEADY, load_pipeline
from gtsvj_reward.training import Contrast, FeatureCache, Rated, refit

REAL, RATED, PER, TESTED, EACH = (6, 12, 1, 2, 3) if FAST else (64, 24, 5, 12, 8)


def play(frames, labels):
    """Clips side by side, each with a line of text."""
    display(HTML(gallery([preview(clip, FPS) for clip in frames], labels)))


def given(clip):
    """A function that loads a clip; this one is in memory."""
    return lambda: clip


# %% [markdown]
# ## Clips
#
# The generator, `gtsvj-toy-unsteady`, makes clips of which many flicker or drift in colour. Real
# clips are rendered scenes, encoded by its VAE. The prompts of the clips that are rated and of
# those that are tested differ. `generate` also measures how steady the colours of each clip are in
# its pixels; the judge does not use that number.

# %%
pipe = load_pipeline(UNSTEADY)
space = LatentSpace.from_pipeline(pipe)
specs = [ClipSpec(f"real-{index}", (801, index), {}) for index in range(REAL)]
real = torch.cat(
    [
        encode_frames(torch.stack([spec.draw() for spec in specs[i : i + 16]]), pipe.vae, space)
        for i in range(0, REAL, 16)
    ]
)
tested, rated = choose_prompts("two yellow circles falling", TESTED, RATED, seed=0)
own = generate(pipe, rated, PER, 5000, "clips to rate")
test = generate(pipe, tested, EACH, 0, "clips to test")

# %% [markdown]
# ## A judge without labels
#
# Each real clip is compared with a perturbation of itself and with a clip of the generator. The
# cache reads each clip once, so that later fits need no pass of the generator.

# %%
config = JudgeConfig(base_model=UNSTEADY, latent_space=space, readout="moments", lora_rank=0)
fresh = VideoJudge.from_transformer(pipe.transformer, config)
cache = FeatureCache(fresh, batch_size=16)
sampler, pairs = PerturbationSampler.extended(), []
for index, clip in enumerate(real):
    generator = keyed_generator(0, index)
    kind = sampler.draw(generator, generated_available=False).kind
    worse = sampler.apply(kind, clip[None], generator)[0]
    other = own.latents[index % len(own.latents)]
    source = f"real {index}"
    pairs.append(Contrast(given(clip), given(worse), (source, source)))
    pairs.append(Contrast(given(clip), given(other), (source, f"own {index}")))

began = time.monotonic()
unlabelled = refit(fresh, cache, contrast=pairs)
print(f"{cache.computed} clips read and fitted in {time.monotonic() - began:.0f} s")

# %% [markdown]
# ## Ratings of the generator's own clips
#
# The simulated person rates steadiness from 1 to 5 with an error of half a point. People use `gtsvj
# label`, a local page that plays clips and writes such labels (`docs/labels.md`).

# %%
ratings = simulated_ratings(own.steadiness, seed=0)
some = [ratings.index(value) for value in sorted(set(ratings))]
play(own.frames[some], [f"rated {ratings[index]}" for index in some])

# %% [markdown]
# ## Refit
#
# More ratings each time. The energy of the first fit stays an input of the aspect. On clips of
# other prompts: how well the scores rank the clips of a prompt by measured steadiness (rank
# correlation), and how much steadier the best of a prompt is than the prompt's mean, in nats.

# %%
rows = [
    Rated(given(clip), {"steadiness": rating}, own.prompts[index // own.each])
    for index, (clip, rating) in enumerate(zip(own.latents, ratings, strict=True))
]
aspect = Aspect(name="steadiness", low=1, high=5)
counts = [len(rows) // 4, len(rows) // 2, len(rows)]
began = time.monotonic()
judges = {0: unlabelled}
judges |= {n: refit(unlabelled, cache, ratings=rows[:n], aspects=[aspect]) for n in counts}
print(f"{len(counts)} refits in {time.monotonic() - began:.0f} s\n")

lots = test.steadiness.split(EACH)
means = torch.stack([lot.mean() for lot in lots])
picks = {}
for count, judge in judges.items():
    scores = GTSVJReward(judge)(test.latents, space=space, fps=FPS).split(EACH)
    rank = sum(spearman(score, lot) for score, lot in zip(scores, lots, strict=True)) / len(lots)
    picks[count] = [int(score.argmax()) for score in scores]
    found = torch.stack([lot[pick] for lot, pick in zip(lots, picks[count], strict=True)])
    gap = paired_difference(found, means)
    print(
        f"{count:3d} ratings: rank correlation {rank:+.2f}; the best is steadier by "
        f"{gap.mean:+.2f}, 95% interval {gap.low:+.2f} to {gap.high:+.2f}"
    )
most = paired_difference(torch.stack([lot.max() for lot in lots]), means)
print(f"the steadiest clip of each prompt is steadier by {most.mean:+.2f}")

# %% [markdown]
# Without labels the picks are no steadier than random clips, as far as this test can measure.
# After 30 ratings they gain 0.39 of the possible 0.48 nats. On these 12 prompts more
# ratings do not improve the picks, but they reduce the uncertainty, below.
#
# The picks for the first prompts: by the judge without labels, and after all ratings.

# %%
shown = [(lot, n) for lot in range(min(3, TESTED)) for n in (0, len(rows))]
play(
    [test.frames[lot * EACH + picks[n][lot]] for lot, n in shown],
    [f"{tested[lot]}, {n} ratings" for lot, n in shown],
)

# %% [markdown]
# ## Uncertainty
#
# The fit also gives each score a standard deviation, from the posterior of the regression. It
# falls with the number of ratings. `GTSVJReward(judge, pessimism=1.0)` subtracts it from the
# reward.

# %%
for count in counts:
    details = GTSVJReward(judges[count]).details(test.latents, space=space, fps=FPS)
    points = details.aspects["steadiness"]
    print(
        f"{count:3d} ratings: mean uncertainty {details.uncertainty.mean():.2f}, "
        f"predicted ratings {points.min():.1f} to {points.max():.1f}"
    )

# %% [markdown]
# ## Save and load
#
# The folder holds the config and the readout, not the generator. `gtsvj inspect output-02/judge`
# describes it.

# %%
GTSVJReward(judges[len(rows)]).save_pretrained("output-02/judge")
loaded = GTSVJReward.from_pretrained("output-02/judge", transformer=pipe.transformer)
with torch.no_grad():
    change = loaded(test.latents, space=space) - GTSVJReward(judges[len(rows)])(test.latents)
print(f"largest change of a score after loading: {change.abs().max():.1e}")

# %% [markdown]
# ## Next
#
# `gtsvj quickstart` does these steps for a pipeline and a folder of real videos in one command
# (`docs/quickstart.md`); `docs/moments.md` has the equations. `03_align.ipynb` trains a generator
# with a judge.
