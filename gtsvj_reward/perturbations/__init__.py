"""Latent perturbations that make negatives, how they are sampled, and truncation (Section 4.1)."""

from gtsvj_reward.perturbations.extended import (
    EXTENDED as EXTENDED,
    latent_blur as latent_blur,
    latent_ghosting as latent_ghosting,
)
from gtsvj_reward.perturbations.index_maps import (
    MINIMUM_STEPS as MINIMUM_STEPS,
    Region as Region,
    SlicePair as SlicePair,
    frame_drop_index as frame_drop_index,
    frame_shuffle_index as frame_shuffle_index,
    noisy_segment_slice as noisy_segment_slice,
    patch_swap_region as patch_swap_region,
    slice_pair as slice_pair,
    temporal_slice_swap_index as temporal_slice_swap_index,
)
from gtsvj_reward.perturbations.operations import (
    PERTURBATIONS as PERTURBATIONS,
    Perturbation as Perturbation,
    frame_drop as frame_drop,
    frame_shuffle as frame_shuffle,
    noisy_segment as noisy_segment,
    patch_swap as patch_swap,
    temporal_slice_swap as temporal_slice_swap,
)
from gtsvj_reward.perturbations.sampler import (
    GENERATED as GENERATED,
    NegativeDraw as NegativeDraw,
    PerturbationSampler as PerturbationSampler,
)
from gtsvj_reward.perturbations.truncation import (
    latent_steps as latent_steps,
    lengths_between as lengths_between,
    truncate as truncate,
    truncated_length as truncated_length,
)
from gtsvj_reward.random_keys import keyed_generator as keyed_generator
