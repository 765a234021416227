"""Tables: read and written as CSV, JSONL, JSON and parquet, and shown as text."""

from gtsvj_reward.tables.cells import first_few as first_few, quoted as quoted
from gtsvj_reward.tables.table import (
    Column as Column,
    Table as Table,
    read_table as read_table,
    write_table as write_table,
)
from gtsvj_reward.tables.text import (
    markdown_table as markdown_table,
    percent as percent,
    text_table as text_table,
)
