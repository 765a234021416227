"""Human ratings and comparisons of videos, and the files they come in."""

from gtsvj_reward.annotations.records import (
    Comparison as Comparison,
    Comparisons as Comparisons,
    Rating as Rating,
    Ratings as Ratings,
)
