"""Labels of people: a local page that shows clips, and the files that it writes.

Importing this package imports neither FastAPI nor uvicorn.
"""

from gtsvj_reward.labelling.clips import Clip as Clip, ClipSet as ClipSet, read_clips as read_clips
from gtsvj_reward.labelling.export import export as export
from gtsvj_reward.labelling.session import Session as Session, SessionSettings as SessionSettings
