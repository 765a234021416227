"""Human ratings and comparisons of videos, and the files they come in."""

from gtsvj_reward.annotations.aspects import (
    VISIONREWARD_ASPECTS as VISIONREWARD_ASPECTS,
    AspectScale as AspectScale,
)
from gtsvj_reward.annotations.formats import (
    COMPARISON_FORMATS as COMPARISON_FORMATS,
    RATING_FORMATS as RATING_FORMATS,
    read_labelled_comparisons as read_labelled_comparisons,
)
from gtsvj_reward.annotations.genai_bench import read_genai_bench as read_genai_bench
from gtsvj_reward.annotations.plain import (
    read_comparisons as read_comparisons,
    read_ratings as read_ratings,
)
from gtsvj_reward.annotations.ranked_sets import read_ranked_sets as read_ranked_sets
from gtsvj_reward.annotations.rankings import read_rankings as read_rankings
from gtsvj_reward.annotations.records import (
    Comparison as Comparison,
    Comparisons as Comparisons,
    Rating as Rating,
    Ratings as Ratings,
    likelier_side as likelier_side,
)
from gtsvj_reward.annotations.videodpo import read_videodpo as read_videodpo
from gtsvj_reward.annotations.videofeedback import (
    VIDEOFEEDBACK2_ASPECTS as VIDEOFEEDBACK2_ASPECTS,
    VIDEOFEEDBACK_ASPECTS as VIDEOFEEDBACK_ASPECTS,
    read_videofeedback as read_videofeedback,
    read_videofeedback2 as read_videofeedback2,
)
from gtsvj_reward.annotations.videogen_rewardbench import (
    read_videogen_rewardbench as read_videogen_rewardbench,
    read_videoreward_comparisons as read_videoreward_comparisons,
    read_videoreward_ratings as read_videoreward_ratings,
)
from gtsvj_reward.annotations.videos import (
    FoundClips as FoundClips,
    find_clips as find_clips,
    keep_found_comparisons as keep_found_comparisons,
    keep_found_ratings as keep_found_ratings,
)
from gtsvj_reward.annotations.visionreward import (
    read_monetbench as read_monetbench,
    read_visionreward_comparisons as read_visionreward_comparisons,
    read_visionreward_ratings as read_visionreward_ratings,
)
from gtsvj_reward.annotations.vote_fractions import (
    read_datapoint as read_datapoint,
    read_rapidata as read_rapidata,
)
from gtsvj_reward.annotations.writing import (
    write_comparisons as write_comparisons,
    write_ratings as write_ratings,
)
