"""Draw the picture of the README: what a judge picks before and after ratings, as an animation.

    python -m tools.demo.front_picture --out docs/images/before-after.gif

It is the demo's first part with the demo's seed, prompts and sizes.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from gtsvj_reward.demo.run import PROMPT
from gtsvj_reward.demo.story import Choice, Sizes, Story, tell
from gtsvj_reward.toy.world import FPS

SCALE, GAP, LEFT, TOP = 2, 8, 150, 26
PAPER, INK, QUIET = "white", "#1f2328", "#59636e"


def main() -> None:
    """Tell the story and draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--columns", type=int, default=5, help="prompts shown, the demo's first")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        story = tell(Path(folder), PROMPT, Sizes(), seed=0)
    pictures = frames_of(story, args.columns)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = [picture.quantize(128) for picture in pictures]
    first.save(args.out, save_all=True, append_images=rest, duration=round(1000 / FPS), loop=0)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, gains {story.gains()}")


def frames_of(story: Story, columns: int) -> list[Image.Image]:
    """One picture for each frame: a row of picks before, a row after, prompts above."""
    lot = story.candidates
    side = SCALE * lot.frames.shape[2]
    size = (LEFT + columns * (side + GAP), TOP + 2 * (side + GAP))
    before, after = story.gains()
    titles = (
        ("no labels", before),
        (f"{len(story.ratings)} ratings", after),
    )
    pictures = []
    for time in range(lot.frames.shape[1]):
        picture = Image.new("RGB", size, PAPER)
        draw = ImageDraw.Draw(picture)
        for row, (choices, (title, gain)) in enumerate(
            zip((story.before, story.after), titles, strict=True)
        ):
            top = TOP + row * (side + GAP)
            write(draw, (0, top + side // 2 - 20), title, INK, 18)
            write(draw, (0, top + side // 2 + 4), f"{gain:.0%} of the gain", QUIET, 14)
            paste_row(picture, story, choices[:columns], time, top, side)
        for column, prompt in enumerate(lot.prompts[:columns]):
            write(draw, (LEFT + column * (side + GAP), 6), prompt, QUIET, 10)
        pictures.append(picture)
    return pictures


def paste_row(
    picture: Image.Image, story: Story, choices: Sequence[Choice], time: int, top: int, side: int
) -> None:
    """The picked clip of each prompt at one time."""
    lot = story.candidates
    for column, choice in enumerate(choices):
        frame = lot.frames[lot.rows(column)][choice.best][time].numpy()
        clip = Image.fromarray(frame).resize((side, side), Image.Resampling.NEAREST)
        picture.paste(clip, (LEFT + column * (side + GAP), top))


def write(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, colour: str, size: int
) -> None:
    """Text with its left upper corner at a place."""
    draw.text(place, text, fill=colour, font=ImageFont.load_default(size))


if __name__ == "__main__":
    main()
