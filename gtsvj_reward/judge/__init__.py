"""Judges: a backbone, an adapter and a head."""

from gtsvj_reward.judge.batching import judge_clips as judge_clips
from gtsvj_reward.judge.checkpoint import (
    CheckpointError as CheckpointError,
    OtherBaseError as OtherBaseError,
    load_judge as load_judge,
    read_config as read_config,
    save_judge as save_judge,
)
from gtsvj_reward.judge.config import (
    Aspect as Aspect,
    Geometry as Geometry,
    JudgeConfig as JudgeConfig,
)
from gtsvj_reward.judge.heads import (
    AspectHead as AspectHead,
    EnergyHead as EnergyHead,
)
from gtsvj_reward.judge.locate import (
    resolve_checkpoint as resolve_checkpoint,
    upload_judge as upload_judge,
)
from gtsvj_reward.judge.model import VideoJudge as VideoJudge
from gtsvj_reward.judge.output import JudgeOutput as JudgeOutput
from gtsvj_reward.judge.settings import JudgeSettings as JudgeSettings
