"""A call of a live judge: scores and gradients, with the policy as the base."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gtsvj_reward.backbones import ImageCondition, LiveBackbone, TextCondition
from gtsvj_reward.judge import JudgeOutput, VideoJudge
from gtsvj_reward.judge.batching import by_clip
from gtsvj_reward.judge.conditions import image_for
from gtsvj_reward.judge.reading import step_features
from gtsvj_reward.reward.assemble import require_finite_scores
from gtsvj_reward.reward.clips import Clips
from gtsvj_reward.reward.output import RewardOutput


@dataclass(frozen=True)
class Plan:
    """One process's needs in a joint call."""

    passes: int
    """Forward passes."""
    gradients: bool
    """Whether any of its clips needs a gradient."""
    shape: tuple[int, ...] | None
    """Shape of a clip as the policy reads it, (1, time, ...); None without clips."""
    text: TextCondition | None
    """Text of a clip on the meta device, for its shapes; None without prompts."""
    image: ImageCondition | None = None
    """The same for images."""


@dataclass(frozen=True)
class LiveCall:
    """One joint call of the processes with shards of one policy.

    All run as many forward passes as the process that needs most, with padding clips if they have
    no clips left, and a backward pass after each if any process needs gradients. Only these passes
    communicate; errors are exchanged before, in and after them.
    """

    judge: VideoJudge
    """A judge on a `LiveBackbone`."""
    policy: LiveBackbone
    """That backbone."""
    batch_size: int
    """Clips per forward pass."""
    prepare: Callable[[Clips], Clips]
    """Checks clips and moves them to the policy's device."""
    assemble: Callable[[Clips, Sequence[JudgeOutput]], RewardOutput]
    """Builds the reward's output from the judge's outputs for prepared clips, differentiably."""

    def score(self, clips: Clips) -> RewardOutput:
        """Scores of the clips.

        Raises:
            RankError: if another process raised something else.
        """
        given = clips.latents
        with self.policy.as_base():
            with self.policy.together():
                self.judge.follow_base()
                clips = self.prepare(clips)
                latents = list(clips.latents)
                batches = clips.buckets(self.batch_size)
                plan = self.plan(clips, batches)
            plans = self.policy.ranks.gather(plan)
            padding = self.padding(plans)
            gradients = any(each.gradients for each in plans)
            outputs: dict[int, JudgeOutput] = {}
            slopes: dict[int, Tensor] = {}
            with self.policy.together():
                for chosen in batches:
                    found, slope = self.forward(clips.rows(chosen), gradients)
                    outputs.update(zip(chosen, found, strict=True))
                    slopes.update(zip(chosen, slope, strict=False))
                for _ in range(max(each.passes for each in plans) - len(batches)):
                    self.take_part(padding, gradients)
                out = self.assemble(clips, [outputs[index] for index in range(len(latents))])
                require_finite_scores(out, clips.names)
        if isinstance(given, torch.Tensor) and not len(given) and given.requires_grad:
            # A process without clips must be able to run the same backward pass as the others.
            return replace(out, rewards=out.rewards + given.sum().to(out.rewards))
        if not plan.gradients:
            return out
        return handed_over(out, latents, [slopes[index] for index in range(len(latents))])

    def plan(self, clips: Clips, batches: list[list[int]]) -> Plan:
        """The plan for the clips; all errors about clips are raised here.

        Raises:
            ValueError: for clips, text or image that the judge or the policy does not take.
        """
        latents, nowhere = clips.latents, torch.device("meta")
        gradients = torch.is_grad_enabled() and any(clip.requires_grad for clip in latents)
        if gradients and self.policy.offloaded_from is not None:
            raise ValueError(
                "a policy with group offloading cannot be differentiated through: its weights "
                "leave the device before the backward pass. Turn offloading off, or score under "
                "torch.no_grad()"
            )
        shape = sort = sight = None
        for chosen in batches:
            one = clips.rows(chosen[:1])
            first = one.latents[0].detach()[None]
            self.judge.check_size((first.shape[1], first.shape[3], first.shape[4]))
            seen = self.judge.view(first).to(self.policy.dtype)
            condition = self.judge.condition(one.text, 1)
            image = image_for(self.judge.config, one.image)
            self.policy.arguments(
                seen, timestep=self.judge.config.timestep, text=condition, image=image
            )
            if shape is None:
                shape = tuple(seen.shape)
                sort = None if condition is None else condition.to(nowhere)
                sight = None if image is None else image.to(nowhere)
        return Plan(len(batches), gradients, shape, sort, sight)

    def padding(self, plans: Sequence[Plan]) -> Plan:
        """The plan whose clips the padding clips imitate.

        Raises:
            ValueError: in all processes, if some have prompts and others none, of a judge that
                takes further passes for prompts.
        """
        filled = [plan for plan in plans if plan.shape is not None]
        prompted = sum(plan.text is not None for plan in filled)
        if self.judge.config.prompt_level is not None and prompted not in (0, len(filled)):
            raise ValueError(
                f"{prompted} of the {len(filled)} processes with clips passed `text`: this judge "
                "takes further forward passes for prompts, which all processes make together. "
                "Pass it in all of them, or in none"
            )
        return filled[0] if filled else plans[0]

    def forward(self, clips: Clips, gradients: bool) -> tuple[list[JudgeOutput], list[Tensor]]:
        """The judge's outputs for a batch and, if needed, the gradient of each final score."""
        batch = torch.stack([clip.detach() for clip in clips.latents]).requires_grad_(gradients)
        with torch.set_grad_enabled(gradients):
            outputs = by_clip(self.judge(batch, clips.text, clips.image))
            if gradients:
                # Only the clips get gradients, not the weights of judge or base.
                self.assemble(clips, outputs).rewards.sum().backward()
        detached = [output.each(torch.Tensor.detach) for output in outputs]
        return detached, [] if batch.grad is None else list(batch.grad)

    def take_part(self, like: Plan, gradients: bool) -> None:
        """A forward pass with a padding clip, whose result is dropped."""
        config, device = self.judge.config, self.policy.device
        clip = torch.zeros(like.shape or (), device=device, requires_grad=gradients)
        text = None if like.text is None else blank(like.text, device)
        image = None if like.image is None else blank_image(like.image, device)
        with torch.set_grad_enabled(gradients):
            if config.readout == "moments":
                seen = step_features(self.policy, clip, config, text, image)
            else:
                seen = self.policy(clip, timestep=config.timestep, text=text, image=image)
            if gradients:
                seen.sum().backward()


def blank(text: TextCondition, device: torch.device) -> TextCondition:
    """Text of the same shapes: all zeros, all tokens valid."""
    return replace(
        text,
        embeds=torch.zeros_like(text.embeds, device=device),
        mask=None if text.mask is None else torch.ones_like(text.mask, device=device),
        pooled=None if text.pooled is None else torch.zeros_like(text.pooled, device=device),
    )


def blank_image(image: ImageCondition, device: torch.device) -> ImageCondition:
    """Images of the same shapes, all zeros."""
    return replace(
        image,
        latents=torch.zeros_like(image.latents, device=device),
        embeds=None if image.embeds is None else torch.zeros_like(image.embeds, device=device),
    )


def handed_over(
    out: RewardOutput, clips: Sequence[Tensor], slopes: Sequence[Tensor]
) -> RewardOutput:
    """The output with each clip's gradient attached to `rewards` only."""
    (anchor, *_) = (clip for clip in clips if clip.requires_grad)

    def bare(values: Tensor, name: str) -> Tensor:
        found: Tensor = Bare.apply(values, name, anchor)
        return found

    return replace(
        out,
        rewards=HandOver.apply(out.rewards, tuple(slopes), *clips),
        raw=bare(out.raw, "raw"),
        trajectory=[bare(steps, "trajectory") for steps in out.trajectory],
        parts={name: bare(values, name) for name, values in out.parts.items()},
        aspect_trajectory=[
            {name: bare(values, name) for name, values in steps.items()}
            for steps in out.aspect_trajectory
        ],
        uncertainty=None if out.uncertainty is None else bare(out.uncertainty, "uncertainty"),
    )


class HandOver(torch.autograd.Function):
    """Scores with known gradients; each score depends only on its own clip."""

    @staticmethod
    def forward(ctx: Any, rewards: Tensor, slopes: tuple[Tensor, ...], *clips: Tensor) -> Tensor:
        """The scores, unchanged."""
        del clips
        ctx.save_for_backward(*slopes)
        return rewards.view_as(rewards)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Each clip's gradient times the incoming gradient of its score."""
        products = [
            (slope.float() * each).to(slope.dtype)
            for slope, each in zip(ctx.saved_tensors, gradient, strict=True)
        ]
        return (None, None, *products)


class Bare(torch.autograd.Function):
    """Numbers that raise an error when they are differentiated."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, name: str, anchor: Tensor) -> Tensor:
        """The numbers, unchanged."""
        del anchor
        ctx.name = name
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        """Raise an error."""
        del gradient
        raise RuntimeError(
            f"{ctx.name!r} of a live judge has no gradient: the call computes that of `rewards` "
            "only. Differentiate these (choose aspects with `weights=`, uncertainty with "
            "`pessimism=` of the judge, not of an ensemble), or use a judge with its own or shared "
            "weights"
        )
