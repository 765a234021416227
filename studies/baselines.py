"""Simple baselines, on the same ratings and comparisons as the judge.

Each learns the aspects from ratings (squared error), then weights them by the comparisons (logistic
regression on differences of predicted aspects, ties left out), as the judge's stages 2 and 3 do.
The temporal-difference score learns nothing.
"""

import csv
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gtsvj_reward.latents.store import load_clip
from gtsvj_reward.toy.raters import ASPECTS

Predict = Callable[[Tensor], Tensor]
"""Clips (clip, time, channel, height, width) -> aspects (clip, aspect), 0..1."""

Names = list[str]


def statistics(clips: Float[Tensor, "clip time channel height width"]) -> Tensor:
    """Hand-made features (clip, feature): what a latent looks like and how it changes."""
    first, second = clips.diff(dim=1), clips.diff(dim=1, n=2)
    lag = clips[:, 2:] - clips[:, :-2]
    maps = {
        "value": clips,
        "first": first,
        "second": second,
        "lag": lag,
        "across": clips.diff(dim=4),
        "down": clips.diff(dim=3),
    }
    rows = []
    for values in maps.values():
        rows += [values.abs().mean(dim=(1, 3, 4)), values.square().mean(dim=(1, 3, 4)).sqrt()]
    rows.append(clips.mean(dim=(1, 3, 4)))
    per_step = first.abs().mean(dim=(2, 3, 4))  # (clip, step): how much each step changes
    rows.append(torch.stack([per_step.amax(1), per_step.amin(1), per_step.std(1)], dim=1))
    brightness = clips.mean(dim=(3, 4))
    rows.append(brightness.diff(dim=1).abs().amax(dim=1))
    return torch.cat(rows, dim=1)


def fit_ridge(clips: Tensor, targets: Tensor, seed: int) -> Predict:
    """Ridge regression on `statistics`; its strength is chosen on a fifth of the labels."""
    features = statistics(clips).double()
    mean, std = features.mean(0), features.std(0) + 1e-6

    def solve(x: Tensor, y: Tensor, strength: float) -> Tensor:
        x = F.pad((x - mean) / std, (0, 1), value=1.0)
        penalty = strength * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
        penalty[-1, -1] = 0
        return torch.linalg.solve(x.T @ x + penalty, x.T @ y)

    def apply(x: Tensor, weights: Tensor) -> Tensor:
        return F.pad((x - mean) / std, (0, 1), value=1.0) @ weights

    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(seed))
    apart, kept = order[: len(order) // 5], order[len(order) // 5 :]
    goal = targets.double()
    errors = {
        strength: (
            apply(features[apart], solve(features[kept], goal[kept], strength)) - goal[apart]
        )
        .square()
        .mean()
        .item()
        for strength in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    }
    weights = solve(features, goal, min(errors, key=lambda strength: errors[strength]))
    return lambda clips: apply(statistics(clips).double(), weights).float()


class Convolutions(nn.Module):
    """A small network on latents; `time` is the kernel's size in time, 1 reads single frames."""

    def __init__(self, time: int, channels: int = 16, width: int = 48) -> None:
        super().__init__()
        pad = (time // 2, 1, 1)
        self.layers = nn.ModuleList(
            nn.Conv3d(inputs, width, (time, 3, 3), padding=pad, stride=(1, stride, stride))
            for inputs, stride in ((channels, 1), (width, 2), (width, 2))
        )
        self.norms = nn.ModuleList(nn.GroupNorm(1 if time > 1 else 8, width) for _ in range(3))
        self.out = nn.Linear(width, len(ASPECTS))
        self.per_frame = time == 1

    def forward(self, clips: Float[Tensor, "clip time channel height width"]) -> Tensor:
        """Aspects (clip, aspect)."""
        length = clips.shape[1]
        # A network of single frames must not get other frames through its normalisation.
        x = clips.flatten(0, 1)[:, :, None] if self.per_frame else clips.transpose(1, 2)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.silu(norm(layer(x)))
        pooled = self.out(x.mean(dim=(2, 3, 4)))
        return pooled.unflatten(0, (-1, length)).mean(dim=1) if self.per_frame else pooled


def fit_network(clips: Tensor, targets: Tensor, seed: int, *, time: int, steps: int) -> Predict:
    """Train on four fifths, keep the state that is best on the last fifth."""
    torch.manual_seed(seed)
    network = Convolutions(time)
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(seed))
    apart, kept = order[: len(order) // 5], order[len(order) // 5 :]
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    best, least = network.state_dict(), float("inf")
    for step in range(steps):
        some = kept[torch.randint(len(kept), (min(32, len(kept)),))]
        loss = (network(clips[some]) - targets[some]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 19:
            with torch.no_grad():
                error = (network(clips[apart]) - targets[apart]).square().mean().item()
            if error < least:
                least = error
                best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(best)
    network.eval()

    def predict(clips: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([network(part) for part in clips.split(64)])

    return predict


def fit_weights(first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
    """Logistic regression of the winner on differences of aspects; no constant, no ties."""
    clear = labels != 0
    gap, wins = (first - second)[clear].double(), (labels[clear] > 0).double()
    weights = torch.zeros(gap.shape[1], dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(gap @ weights, wins)
        loss = loss + 1e-3 * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach().float()


def temporal_difference(clips: Float[Tensor, "clip time channel height width"]) -> Tensor:
    """Minus the mean absolute change from one latent frame to the next: smooth is good."""
    return -clips.diff(dim=1).abs().mean(dim=(1, 2, 3, 4))


def read_clips(folder: Path, names: Names) -> Tensor:
    """Latents (clip, time, channel, height, width) of clips of one length."""
    return torch.stack([load_clip(folder / f"{name}.safetensors").latents for name in names])


def baseline_scores(
    name: str, data: Path, ratings: Path, clips: dict[str, Tensor], seed: int, steps: int
) -> dict[str, float]:
    """Train a baseline and score the test clips.

    Raises:
        ValueError: for an unknown baseline.
    """
    lengths = sorted({len(clip) for clip in clips.values()})
    by_length = {size: [n for n, clip in clips.items() if len(clip) == size] for size in lengths}
    stacked = {size: torch.stack([clips[n] for n in by_length[size]]) for size in lengths}
    score: Predict
    if name == "temporal_difference":
        score = temporal_difference
    else:
        with ratings.open() as file:
            rows = list(csv.DictReader(file))
        rated = read_clips(data / "labelled", [row["video"] for row in rows])
        targets = torch.tensor([[float(row[a]) for a in ASPECTS] for row in rows])
        targets = (targets - 1) / 4
        if name == "ridge":
            predict = fit_ridge(rated, targets, seed)
        elif name in ("conv3d", "framewise"):
            time = 3 if name == "conv3d" else 1
            predict = fit_network(rated, targets, seed, time=time, steps=steps)
        else:
            raise ValueError(f"no baseline {name!r}")
        with (data / "compared.csv").open() as file:
            pairs = list(csv.DictReader(file))
        first, second = (
            predict(read_clips(data / "labelled", [pair[side] for pair in pairs]))
            for side in ("video_a", "video_b")
        )
        labels = torch.tensor([int(pair["label"]) for pair in pairs])
        weights = fit_weights(first, second, labels)
        score = lambda clips: predict(clips) @ weights  # noqa: E731
    scores: dict[str, float] = {}
    for size, names in by_length.items():
        scores.update(zip(names, score(stacked[size]).tolist(), strict=True))
    return scores
