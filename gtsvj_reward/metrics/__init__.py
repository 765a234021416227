"""Metrics of the agreement of scores with people, with counts and baselines."""

from gtsvj_reward.metrics.bootstrap import bootstrap_interval as bootstrap_interval
from gtsvj_reward.metrics.correlation import pearson as pearson, spearman as spearman
from gtsvj_reward.metrics.cross_fit import (
    cross_fitted_accuracy_with_ties as cross_fitted_accuracy_with_ties,
    cross_fitted_interval as cross_fitted_interval,
)
from gtsvj_reward.metrics.pairwise import (
    PairwiseAccuracy as PairwiseAccuracy,
    pairwise_accuracy as pairwise_accuracy,
    proportion_interval as proportion_interval,
)
from gtsvj_reward.metrics.ties import (
    TieAccuracy as TieAccuracy,
    accuracy_against_threshold as accuracy_against_threshold,
    accuracy_at_threshold as accuracy_at_threshold,
    accuracy_with_ties as accuracy_with_ties,
    accuracy_without_ties as accuracy_without_ties,
    held_out_accuracy_with_ties as held_out_accuracy_with_ties,
)
from gtsvj_reward.metrics.videoreward import (
    videoreward_accuracy_with_ties as videoreward_accuracy_with_ties,
    videoreward_accuracy_without_ties as videoreward_accuracy_without_ties,
)
from gtsvj_reward.metrics.votes import (
    VoteAgreement as VoteAgreement,
    vote_agreement as vote_agreement,
)
