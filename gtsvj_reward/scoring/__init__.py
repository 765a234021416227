"""Folders of clips scored, ranked and shown: what `gtsvj score` and `gtsvj rank` do."""

from gtsvj_reward.scoring.folder import score_clips as score_clips, score_folder as score_folder
