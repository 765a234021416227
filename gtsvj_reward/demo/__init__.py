"""`gtsvj demo`: the whole path from video files to a report, small enough for two CPU cores."""

from gtsvj_reward.demo.run import PROMPT as PROMPT, run_demo as run_demo
