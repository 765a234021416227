"""`gtsvj demo`: a judge in minutes, then real clips, small enough for two CPU cores."""

from gtsvj_reward.demo.run import PROMPT as PROMPT, run_demo as run_demo
from gtsvj_reward.demo.story import Sizes as Sizes
