# %% [markdown]
# # Score latents, keep the best
#
# A judge reads what a video diffusion model has generated before anything is decoded. Here it ranks
# clips of one prompt, says at which moment a clip suffers, looks at half-finished clips, and fails
# where it fails. It runs on a CPU, in a few minutes, on a toy world of coloured shapes
# (`docs/toy.md`). **Nothing here says how good a judge of CogVideoX would be.**

# %%
import os
import warnings
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import CogVideoXPipeline
from IPython.display import Image, display

from gtsvj_reward import GTSVJReward, LatentSpace, TextCondition
from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.integrations.diffusers import best_of_n, successive_halving
from gtsvj_reward.metrics import pairwise_accuracy, proportion_interval, spearman
from gtsvj_reward.plotting import plot_film_strips, plot_trajectory
from gtsvj_reward.reward import prompt_sensitivity
from gtsvj_reward.toy import FAULTS, captions
from gtsvj_reward.toy.corpus import SEEN, ClipSpec, encode_frames
from gtsvj_reward.toy.degradations import noise
from gtsvj_reward.toy.detector import detect, load_detector
from gtsvj_reward.toy.pipeline import decode, load_pipeline
from gtsvj_reward.toy.words import TEXT_LENGTH

# The tests run all cells with small numbers: GTSVJ_FAST=1 in the environment.
FAST = os.environ.get("GTSVJ_FAST") == "1"
CANDIDATES, STEPS = (4, 4) if FAST else (16, 10)
PROMPTS, PER_PROMPT = (2, 2) if FAST else (32, 6)
SCENES = 3 if FAST else 48

OUT = Path("output-01")
OUT.mkdir(exist_ok=True)

# Loading bars, and the name of an argument that older diffusers know by no other
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()
warnings.filterwarnings("ignore", "`torch_dtype` is deprecated")


def show(path):
    display(Image(filename=str(path), width=860))


# %% [markdown]
# ## A generator, and a judge on its weights
#
# The generator is a real `CogVideoXPipeline`, of 1.8 million parameters. The judge is built on the
# generator's own frozen weights, so that it costs an adapter and a head, and no second model.
#
# On a GPU, with a judge that you have trained (`02_train_a_judge.ipynb`, `examples/cogvideox-2b`),
# set `REAL_MODEL` and the cells up to "What the score cannot tell" work with CogVideoX-2B. We had
# no such judge and no such GPU: **this switch has not been run.**

# %%
REAL_MODEL = False

if REAL_MODEL:
    pipe = CogVideoXPipeline.from_pretrained("zai-org/CogVideoX-2b", torch_dtype=torch.bfloat16).to(
        "cuda"
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.transformer.requires_grad_(False)
    judge, prompt, steps = "path/to/your/judge", "a dog runs on a beach", 50
    call = {"num_frames": 49, "height": 480, "width": 720, "fps": 8.0}
else:
    pipe = load_pipeline()
    judge, prompt, steps = "gtsvj-toy-lora", "two yellow circles falling", STEPS
    call = {"num_frames": 17, "height": 64, "width": 64, "fps": 8.0, "guidance_scale": 3.0}
    call |= {"batch_size": 8, "call_arguments": {"max_sequence_length": TEXT_LENGTH}}

reward = GTSVJReward.from_pretrained(judge, transformer=pipe.transformer)
space = LatentSpace.from_pipeline(pipe)

own = sum(p.numel() for name, p in reward.judge.named_parameters() if "lora" in name)
own += sum(p.numel() for name, p in reward.judge.named_parameters() if "backbone" not in name)
base = sum(p.numel() for p in pipe.transformer.parameters())
print(f"{base:,} parameters generate; the judge adds {own:,} to them")

# %% [markdown]
# ## Best of n
#
# All candidates are generated as latents and scored; only the winner is decoded. Scores have mean 0
# and deviation 1 over the clips that the checkpoint names; higher is better.

# %%
best = best_of_n(
    pipe, reward, prompt, CANDIDATES, num_inference_steps=steps, keep_latents="all", **call
)
ranking = best.scores.argsort(descending=True).tolist()
print(f"{prompt!r}, best first")
for index in ranking:
    aspects = ", ".join(f"{name} {v[index]:.1f}" for name, v in best.details.aspects.items())
    print(f"seed {best.seeds[index]:2d}: {best.scores[index]:+.2f}   ({aspects})")

# %% [markdown]
# To see what it chose between, decode the three best and the three worst.


# %%
def pixels(latents):
    """Frames (time, height, width, 3) of each clip, in 0..255."""
    with torch.no_grad():
        frames = space.decode(latents, pipe.vae)
    return list((255 * frames).round().byte().permute(0, 1, 3, 4, 2).cpu())


shown = list(dict.fromkeys(ranking[:3] + ranking[-3:]))
frames = pixels(best.latents[shown])
show(
    plot_film_strips(
        frames,
        labels=[f"seed {best.seeds[index]}" for index in shown],
        scores=[best.scores[index].item() for index in shown],
        title=f"{prompt!r}: best and worst of {CANDIDATES}",
        path=OUT / "candidates.png",
    )
)

# %% [markdown]
# The score is the mean of a trajectory: one value for each latent time step, which is one frame,
# then four frames each. It says where in the clip the judge is pleased or not. Attention looks both
# ways in time, so it localises, but says nothing of cause.

# %%
for name, place in (("best", 0), ("worst", -1)):
    index = shown[place]
    show(
        plot_trajectory(
            frames[place],
            {"score": best.details.trajectory[index]},
            fps=call["fps"],
            ylabel="raw score, higher is better",
            title=f"{name}: seed {best.seeds[index]}",
            path=OUT / f"{name}.png",
        )
    )

# %% [markdown]
# ## An early look
#
# Successive halving scores the clip that the model predicts after some steps, and finishes the
# better half only. The judge was trained on clean latents: the earlier it looks, the less its order
# means. How early is early enough has to be measured with the judge at hand.

# %%
looks = range(1, steps) if FAST else (2, 4, 6, 8)
print("look after   denoising steps   rank correlation, early and final   same winner")
for look in looks:
    halved = successive_halving(
        pipe,
        reward,
        prompt,
        CANDIDATES,
        look_at=look,
        finish=CANDIDATES // 2,
        num_inference_steps=steps,
        **call,
    )
    agreement = spearman(halved.early_scores, best.scores)
    share = halved.denoising_steps / (CANDIDATES * steps)
    same = "yes" if halved.winners[0] == best.winners[0] else "no"
    print(f"step {look:2d}      {share:8.0%} of all   {agreement:20.2f}   {same:>23}")

# %% [markdown]
# ## What does it buy?
#
# The toy world has a detector, a small network that reads a clip's caption back and has never met a
# judge. For many prompts we ask it whether the clip shows the whole caption: for the first
# candidate, for the judge's best, and for its worst. From here on everything is the toy world's.

# %%
toy = load_pipeline()
toy_reward = GTSVJReward.from_pretrained("gtsvj-toy-lora", transformer=toy.transformer)
toy_space = LatentSpace.from_pipeline(toy)
toy_call = {"num_frames": 17, "height": 64, "width": 64, "fps": 8.0, "guidance_scale": 3.0}
toy_call |= {"batch_size": 8, "call_arguments": {"max_sequence_length": TEXT_LENGTH}}

detector = load_detector()
picked = torch.randperm(96, generator=torch.Generator().manual_seed(0))[:PROMPTS].tolist()
asked = [captions()[index] for index in picked]
chosen = {"first": [], "judge's best": [], "judge's worst": []}
for text in asked:
    found = best_of_n(
        toy,
        toy_reward,
        text,
        PER_PROMPT,
        num_inference_steps=STEPS,
        keep_latents="all",
        **toy_call,
    )
    for name, index in (
        ("first", 0),
        ("judge's best", int(found.scores.argmax())),
        ("judge's worst", int(found.scores.argmin())),
    ):
        chosen[name].append(found.latents[index])

for name, clips in chosen.items():
    seen = detect(detector, torch.stack(decode(toy, torch.stack(clips))))
    hits = sum(detection.caption == text for detection, text in zip(seen, asked, strict=True))
    low, high = proportion_interval(hits / len(asked), len(asked))
    print(
        f"{name:14s} whole caption right in {hits:2d} of {len(asked)}: "
        f"{hits / len(asked):4.0%}, 95% interval {low:.0%} to {high:.0%}"
    )

# %% [markdown]
# ## What the score cannot tell
#
# **The prompt.** The judge takes none, as the paper's does. `prompt_sensitivity` says so without
# running anything; for a judge or a callable that reads prompts it measures how much they matter.

# %%
prompts = ["two yellow circles falling", "one blue square orbiting"]
embeds, _ = toy.encode_prompt(
    prompts, do_classifier_free_guidance=False, max_sequence_length=TEXT_LENGTH
)
clips = [
    best_of_n(
        toy,
        toy_reward,
        text,
        3,
        num_inference_steps=STEPS,
        keep_latents="all",
        **toy_call,
    )
    for text in prompts
]
heard = prompt_sensitivity(
    toy_reward, torch.stack([c.latents[0] for c in clips]), TextCondition(embeds), space=toy_space
)
print(f"ignores the prompt: {heard.ignores_prompt}, mean change {heard.mean_change}")

together = torch.cat([c.latents for c in clips])
scores = torch.cat([c.scores for c in clips])
texts = [text for text in prompts for _ in range(3)]
order = scores.argsort(descending=True).tolist()
show(
    plot_film_strips(
        decode(toy, together[order]),
        labels=[texts[index] for index in order],
        scores=[scores[index].item() for index in order],
        title=f"ranked as if all had been asked for {prompts[0]!r}",
        path=OUT / "prompts.png",
    )
)

# %% [markdown]
# **Some faults.** Rendered scenes, each clean and with one strong fault (severity 0.8), through the
# codec: the share of scenes in which the clean clip scores higher. A half is chance. Stutter,
# colour drift and morphing were in none of the judge's labels.

# %%
clean = [ClipSpec(f"clean-{index}", (501, index), {}) for index in range(SCENES)]


def scored(specs):
    """Frames and trajectories of rendered clips."""
    clips = torch.stack([spec.draw() for spec in specs])
    with torch.no_grad():
        latents = torch.cat([encode_frames(part, toy.vae, toy_space) for part in clips.split(16)])
        return clips, toy_reward.details(latents, space=toy_space, fps=8.0)


clean_frames, clean_scores = scored(clean)
faulty = {}
for fault in FAULTS:
    specs = [ClipSpec(f"{fault}-{index}", (501, index), {fault: 0.8}) for index in range(SCENES)]
    faulty[fault] = scored(specs)
    result = pairwise_accuracy(clean_scores.rewards, faulty[fault][1].rewards)
    low, high = result.interval()
    labelled = "in its labels" if fault in SEEN else "held out"
    remark = (
        "" if low > 0.5 else "   worse than chance" if high < 0.5 else "   not told from chance"
    )
    print(f"{fault:13s} {labelled:14s} {result.accuracy:5.0%}  ({low:.0%} to {high:.0%}){remark}")

# %% [markdown]
# A scene for each of the faults that it gets wrong most often, the one with the largest error: the
# faulty clip scores higher than the clean one. Not every fault shows in single frames: a clip that
# stutters repeats some of them.

# %%
gaps = {name: scores.rewards - clean_scores.rewards for name, (_, scores) in faulty.items()}
missed = sorted(gaps, key=lambda name: -(gaps[name] > 0).float().mean())[:2]
rows = []
for name in missed:
    index = int(gaps[name].argmax())
    rows.append((clean_frames[index], "clean", clean_scores.rewards[index]))
    rows.append((faulty[name][0][index], name.replace("_", " "), faulty[name][1].rewards[index]))
show(
    plot_film_strips(
        [frames for frames, _, _ in rows],
        labels=[label for _, label, _ in rows],
        scores=[score.item() for _, _, score in rows],
        columns=12,
        title="faults that the judge does not mind",
        path=OUT / "missed.png",
    )
)

# %% [markdown]
# **When it happens.** Noise is put into frames 9 to 12 only, which are the fourth of five latent
# steps. Does the trajectory fall there?

# %%
damaged = clean_frames.clone()
for index in range(SCENES):
    generator = torch.Generator().manual_seed(index)
    damaged[index, 9:13] = noise(damaged[index, 9:13], 0.8, generator)
with torch.no_grad():
    latents = torch.cat([encode_frames(part, toy.vae, toy_space) for part in damaged.split(16)])
    local = toy_reward.details(latents, space=toy_space, fps=8.0)
falls = torch.stack(clean_scores.trajectory) - torch.stack(local.trajectory)
steps_hit = falls.argmax(dim=1).bincount(minlength=5).tolist()
print("scenes in which the score falls most at step 1, 2, 3, 4, 5:", steps_hit)

typical = int(falls[:, 3].argsort()[SCENES // 2])
show(
    plot_trajectory(
        damaged[typical],
        {"clean": clean_scores.trajectory[typical], "noisy": local.trajectory[typical]},
        fps=8.0,
        ylabel="raw score, higher is better",
        title="noise from 1.1 to 1.6 seconds; a scene of median fall",
        path=OUT / "local.png",
    )
)

# %% [markdown]
# ## Save, load, refuse
#
# A checkpoint holds config, adapter and head, not the base. Loading checks that the base is the one
# that the judge was trained on.

# %%
toy_reward.save_pretrained(OUT / "judge")
for path in sorted((OUT / "judge").iterdir()):
    print(f"{path.name:27s} {path.stat().st_size:9,} bytes")

again = GTSVJReward.from_pretrained(OUT / "judge", transformer=toy.transformer)
same = torch.equal(again(together, space=toy_space), toy_reward(together, space=toy_space))
print(f"the loaded judge gives the same scores: {same}")

# %% [markdown]
# It rejects what it cannot judge, and says why. The demo's codec has sixteen channels too, so
# without the name of the space a judge would score its latents.


# %%
def refusal(what, latents, space=toy_space):
    """Print why the judge does not score some latents."""
    try:
        toy_reward(latents, space=space)
    except ValueError as error:
        print(f"{what}\n    {type(error).__name__}: {error}\n")


broken = together.clone()
broken[1, 0, 0, 0, 0] = float("nan")
foreign = LatentSpace.from_vae(load_vae("gtsvj-demo-codec"))
refusal("latents of another VAE", together, foreign)
refusal("latents that were never scaled", toy_space.unscale(together))
refusal("a NaN in the second clip", broken)
refusal("a clip longer than any in training", torch.cat([together, together], dim=1))

# %% [markdown]
# ## Next
#
# `02_train_a_judge.ipynb` trains such a judge; `docs/diffusers.md` has guidance by the reward and
# costs at full size.
