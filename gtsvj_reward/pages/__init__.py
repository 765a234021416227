"""The frame, the look and the charts that all HTML pages of the package share."""

from gtsvj_reward.pages.axes import Axis as Axis, Plot as Plot
from gtsvj_reward.pages.charts import (
    histogram as histogram,
    strip as strip,
    trajectory as trajectory,
)
from gtsvj_reward.pages.frame import STATIC as STATIC, write_page as write_page
from gtsvj_reward.pages.markup import Markup as Markup, joined as joined, tag as tag
from gtsvj_reward.pages.parts import (
    TableRow as TableRow,
    card as card,
    figures as figures,
    gallery as gallery,
    score_line as score_line,
    table as table,
    tools as tools,
    video as video,
)
