"""Every code block of README, docs and examples: Python runs on tiny models, commands are read.

The blocks of one page share a namespace, which begins with what the page takes for granted
(`tests/docs/pages.py`). Hub ids stand for tiny models of the same classes, cuda for the CPU, and
sizes are small. YAML is read as the settings that it is.
"""

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from gtsvj_reward.reward.scorer_config import ScorerConfig
from gtsvj_reward.serving.judges import DEFAULT
from tests.docs.commands import FOREIGN, ROOT, calls_of, check
from tests.docs.pages import NAMES, World, smaller

PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "examples/**/README.md", "benchmarks/README.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)
RECIPE = "examples/cogvideox-2b/README.md"
LEFT_OUT = {
    ("docs/serving.md", "+reward.reward_functions.video.path"): "flags of verl-omni's command",
    ("docs/serving.md", "_target_: unirl.reward.remote"): "settings of UniRL's own classes",
    ("docs/vader.md", "--reward_fn vidclip"): "flags of VADER's script",
    (RECIPE, "push_to_hub"): "publishes; tests/examples/test_cogvideox_2b.py runs it all",
    (RECIPE, "operations for one clip"): "output; test_cogvideox_2b_settings.py compares it",
    (RECIPE, "hf download"): "downloads by commands of others",
}
"""(page, part of a block) -> why the block is neither run nor checked."""
MOST_LEFT_OUT = 6
"""May only fall."""
HOSTS_OWN = {
    *("name", "path", "reward_model", "dtype", "batch_size", "device", "weight", "required"),
}
"""What trainers keep of an entry for themselves."""


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str
    language: str
    text: str

    @property
    def reason(self):
        """Why it is left out; None if it is not."""
        found = [why for (page, part), why in LEFT_OUT.items()
                 if page == self.page and part in self.text]  # fmt: skip
        return found[0] if found else None


def blocks(page):
    """The blocks of a page in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(page, language, content) for language, content in found]


WITH_BLOCKS = [page for page in PAGES if blocks(page)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The current folder, with files that blocks are named as, and those of examples."""
    named = [
        re.match(r"# ([\w-]+\.yaml)\b", block.text) for page in PAGES for block in blocks(page)
    ]
    for match in filter(None, named):
        (tmp_path / match[1]).write_text(match.string)
    for path in (ROOT / RECIPE).parent.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    settings = Path("examples", "alignment")  # pages name them from the repository's root
    shutil.copytree(ROOT / settings, tmp_path / settings)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_left_out_is_there_and_does_not_grow():
    reasons = [block.reason for page in PAGES for block in blocks(page) if block.reason]
    assert sorted(reasons) == sorted(LEFT_OUT.values()), "each entry is of one block"
    assert len(reasons) <= MOST_LEFT_OUT


@pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")
@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_blocks(page, world, work, monkeypatch, capsys):
    with NAMES.get(page, NAMES[None])(world, monkeypatch) as names:
        for block in blocks(page):
            if block.reason is None:
                READERS[block.language](block, world, names, work, capsys)


def run_python(block, world, names, work, capsys):
    """Run it; what it prints must be what its comments say."""
    capsys.readouterr()
    exec(compile(smaller(block.text, world), block.page, "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    for said in re.findall(r"^print\(.*\)  # (.*)", block.text, re.MULTILINE):
        assert any(said.removesuffix(" ...") in line for line in printed), (said, printed)


def read_commands(block, world, names, work, capsys):
    """Commands are those of this package, with flags that exist; or settings for a host's."""
    if block.text.startswith(("-", "+", "actor")):
        texts = re.findall(r"[{].*[}]", block.text)
        assert texts, f"flags of another program: {block.text}"
        for text in texts:
            load_scorer(yaml.safe_load(smaller(text, world)))
        return
    for call in calls_of(block.text, work):
        assert call[0] not in FOREIGN, call
        check(call, capsys)


def read_settings(block, world, names, work, capsys):
    """A file for a command, which reads it there, or settings of a scorer."""
    if re.match(r"# [\w-]+\.yaml\b", block.text):
        return
    scorers = [*mappings_with_judge(yaml.safe_load(smaller(block.text, world)))]
    assert scorers, "settings of nothing"
    for settings in scorers:
        load_scorer(settings)


def mappings_with_judge(value):
    """The mappings in a nested value that say where a judge is."""
    if isinstance(value, dict):
        if value.keys() & {"judge", "server_url"}:
            yield value
        if "executor" in value:  # a named model of verl-omni
            yield {"judge": value["model_path"], **value["executor"]["kwargs"]}
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from mappings_with_judge(item)


def load_scorer(settings):
    """The scorer, as a host's adapter loads it; of a server's only the settings are read."""
    own = {key: value for key, value in settings.items() if key not in HOSTS_OWN}
    config = ScorerConfig.from_dict(own)
    if config.server_url is None:
        config.load()


def read_json(block, world, names, work, capsys):
    """An answer of the server: it has what a real one has."""
    assert json.loads(block.text).keys() == names["answer"].keys()


def read_toml(block, world, names, work, capsys):
    """Settings of another program: they can be read, and name what a server serves."""
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    settings = tomllib.loads(block.text)["train"]["train_policy"]["remote_reward"]
    assert [entry["name"] for entry in settings["reward_fns"]] == [DEFAULT]


READERS = {
    "python": run_python,
    "bash": read_commands,
    "yaml": read_settings,
    "json": read_json,
    "toml": read_toml,
}
"""Language -> what is done with a block."""


def inline_commands():
    """Commands in running text, whole or not, but those that say `...` themselves."""
    found = []
    for page in PAGES:
        prose = re.sub(
            r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE
        )
        texts = re.findall(r"`((?:python|make|gtsvj|accelerate launch) [^`]+)`", prose)
        found += [pytest.param(text, id=f"{page}: {text}") for text in texts if "..." not in text]
    return found


@pytest.mark.parametrize("text", inline_commands())
def test_commands_in_running_text(text, work, capsys):
    check(shlex.split(text), capsys, whole=False)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("gtsvj score judge latents --out x.csv --no_such_flag", "unrecognized arguments"),
        ("gtsvj scores judge", "invalid choice"),
        ("gtsvj encode videos", "required"),
        ("accelerate launch -m gtsvj_reward.cli rank a b --out x --margin 1", "unrecognized"),
        ("python examples/ddpo.py --output_dir x --no_such_flag 1", "no_such_flag"),
        ("python examples/ppo.py", "there is no examples/ppo.py"),
        ("make demonstration", "no demonstration"),
        ('pip install ".[everything]"', "everything"),
    ],
)
def test_wrong_commands_are_found(text, complaint, work, capsys):
    with pytest.raises((AssertionError, ValueError), match=complaint):
        check(shlex.split(text), capsys)
