"""Aligning a generator with a reward: policy, rollouts, guards, and what runs share."""

from gtsvj_reward.alignment.advantages import (
    PromptStatistics as PromptStatistics,
    check_advantages as check_advantages,
)
from gtsvj_reward.alignment.arguments import AlignArguments as AlignArguments
from gtsvj_reward.alignment.drift import prediction_drift as prediction_drift
from gtsvj_reward.alignment.evaluation import EvalMetric as EvalMetric, Evaluation as Evaluation
from gtsvj_reward.alignment.flow import (
    flow_levels as flow_levels,
    flow_noise as flow_noise,
    flow_scheduler as flow_scheduler,
    flow_transition as flow_transition,
)
from gtsvj_reward.alignment.guards import (
    Checkup as Checkup,
    GuardReport as GuardReport,
    Guards as Guards,
    paired_difference as paired_difference,
)
from gtsvj_reward.alignment.pairs import (
    MinedPairs as MinedPairs,
    StoredPair as StoredPair,
    load_pairs as load_pairs,
    mine_pairs as mine_pairs,
    pair_errors as pair_errors,
    read_pairs as read_pairs,
)
from gtsvj_reward.alignment.policy import (
    ClipSize as ClipSize,
    Policy as Policy,
    Prompts as Prompts,
    decoded as decoded,
)
from gtsvj_reward.alignment.processes import Metrics as Metrics
from gtsvj_reward.alignment.refits import Refits as Refits
from gtsvj_reward.alignment.rollout import (
    Rollout as Rollout,
    batches as batches,
    differentiable_sample as differentiable_sample,
    predicted_sample as predicted_sample,
    rollout as rollout,
    schedule as schedule,
    step_taken as step_taken,
    transition as transition,
)
from gtsvj_reward.alignment.run import AlignmentRun as AlignmentRun
from gtsvj_reward.alignment.sampler import Sampler as Sampler
from gtsvj_reward.alignment.transition import (
    Transition as Transition,
    add_noise as add_noise,
    ddim_scheduler as ddim_scheduler,
    ddim_transition as ddim_transition,
    log_probability as log_probability,
    transition_kl as transition_kl,
)
