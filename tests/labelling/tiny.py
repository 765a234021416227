"""Small folders of videos and latents, and sessions on them."""

import torch

from gtsvj_reward.labelling import Session, SessionSettings, read_clips
from gtsvj_reward.labelling.fitting import Model
from gtsvj_reward.latents import LatentClip, save_clip, write_video
from tests.judge.test_moment_judge import moment_judge
from tests.tiny import clips, tiny_space


def empty_files(folder, groups=2, each=3):
    """Files with the names of videos, for what does not open them."""
    for group in range(groups):
        for number in range(each):
            path = folder / f"prompt{group}" / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder


def moving_square(path, *, seed=0, frames=16, height=96, width=128, jump=0.0):
    """A square that crosses the picture; `jump` shakes it."""
    generator = torch.Generator().manual_seed(seed)
    hue = torch.randint(60, 230, (3,), generator=generator)
    clip = torch.full((frames, height, width, 3), 28, dtype=torch.uint8)
    for time in range(frames):
        slip = (jump * torch.randn(2, generator=generator)).round().long().tolist()
        left = (8 + 5 * time + 9 * seed + slip[0]) % (width - 28)
        top = min(max(30 + slip[1], 0), height - 28)
        clip[time, top : top + 26, left : left + 26] = hue.byte()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, clip, 8.0)


def session(tmp_path, *, groups=2, each=3, model=None, **settings):
    """A session on empty files."""
    videos = empty_files(tmp_path / "videos", groups, each)
    return Session(tmp_path / "labels", read_clips(videos), SessionSettings(**settings), model)


def calm(number, total):
    """How still a clip of `latent_files` is, 0 to 1."""
    return ((7 * number) % total) / (total - 1)


def latent_files(folder, names):
    """Latents of clips by name, the later steps of which move more or less."""
    moving = clips(len(names), seed=3)
    for number, name in enumerate(names):
        share = calm(number, len(names))
        still = moving[number, :1].expand(5, -1, -1, -1)
        save_clip(
            folder / f"{name}.safetensors",
            LatentClip(
                latents=share * still + (1 - share) * moving[number],
                space=tiny_space(),
                fps=8.0,
                num_frames=17,
                source=name,
            ),
        )
    return folder


def judged(tmp_path, *, groups=6, each=5, judge=None, **settings):
    """A session with a judge, a fresh one by default; clips are read when it returns."""
    videos = empty_files(tmp_path / "videos", groups, each)
    names = [clip.name for clip in read_clips(videos)]
    found = read_clips(videos, latents=latent_files(tmp_path / "latents", names))
    model = Model(judge or moment_judge(filled=False, taps=[0, 2]), found)
    made = Session(tmp_path / "labels", found, SessionSettings(**settings), model)
    made.worker.wait()
    return made


def better(made, task):
    """What an infallible rater says, who likes calm clips."""
    total = len(made.clips)
    left, right = (calm(made.clips.numbers[name], total) for name in task.clips)
    return 1 if left > right else -1


def answer_all(made, rater, count):
    """Answer tasks without error; returns them."""
    tasks = []
    for _ in range(count):
        task = made.task(rater)
        if task is None:
            break
        made.answer(rater, task.ticket, label=better(made, task))
        tasks.append(task)
    return tasks
