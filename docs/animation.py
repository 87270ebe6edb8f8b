"""Makes docs/images/imagined_and_real.gif: a trained policy acting in its world model, and the same actions simulated.

    gymnast train tabletop output=FOLDER             # the demo: two minutes
    python docs/animation.py FOLDER
    gymnast train tabletop-wishful output=FOLDER     # in a world model that hallucinates on purpose
    python docs/animation.py FOLDER --name hallucination

Eight held-out tasks in a row, successes and failures as they come. The policy sees imagined frames only; the last one
is framed in green for a success, in red for a failure. Look at the picture before committing it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import gymnast
from gymnast_core.rollouts.replay import Course, replay, shown_again
from gymnast_core.seeds import seeded_generator

IMAGES = Path(__file__).parent / "images"
COUNT, HORIZON, PIXELS, GAP = 8, 16, 96, 6
MILLISECONDS, PAUSE = 160, 1200
"""A frame is shown for this long, and the last one for longer."""
TOP = 20
"""Pixels of a caption."""
INK, PAPER, GOOD, BAD = "#1b1f24", "#ffffff", "#1a7f37", "#b42318"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished `gymnast train tabletop`")
    parser.add_argument("--name", default="imagined_and_real", help="of the picture in docs/images, without .gif")
    options = parser.parse_args()
    run = gymnast.load_run(options.run)
    tasks = gymnast.tasks("tabletop", split="reporting", first=100_000, count=COUNT, image_size=32)
    shown = gymnast.roll_out(
        run.policy(), run.world_model(), tasks, horizon=HORIZON, reward_model=run.reward_model(), seed=0
    )
    imagined = [rollout.rollout for rollout in shown]
    courses = [
        Course(task, tuple(rollout.actions_NLA), seeded_generator(0, "replay"))
        for task, rollout in zip(tasks, imagined, strict=True)
    ]
    steps = replay(gymnast.world_model("gymnasium"), courses)
    real = [shown_again(rollout, step) for rollout, step in zip(imagined, steps, strict=True)]
    truth = gymnast.reward_model("environment").score(real)
    judged = [rollout.reward.value for rollout in shown]
    words = [task.instruction.removeprefix("push the ").replace(" block to the ", ": ") for task in tasks]
    rows = [
        ("imagined by the world model; what the learned judge says", imagined, judged),
        ("simulated, the same actions; what is true", real, [reward.value for reward in truth]),
    ]
    pictures = [frame(rows, words, step) for step in range(HORIZON + 1)]
    palette = pictures[-1].quantize(64)
    small = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    times = [MILLISECONDS] * HORIZON + [PAUSE]
    image = IMAGES / f"{options.name}.gif"
    small[0].save(image, save_all=True, append_images=small[1:], duration=times, loop=0, optimize=True)
    print(f"{image}: {image.stat().st_size} bytes; judged {judged}, true {[reward.value for reward in truth]}")
    print("Instructions:", *(task.instruction for task in tasks), sep="\n  ")


def frame(rows: list[tuple], words: list[str], step: int) -> Image.Image:
    """One picture of the animation: each row's rollouts at this step, with a mark of success in the last one."""
    width = COUNT * (PIXELS + GAP) + GAP
    height = TOP + len(rows) * (TOP + PIXELS + GAP)
    canvas = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=13)
    for column, text in enumerate(words):
        draw.text((GAP + column * (PIXELS + GAP), 2), text, fill=INK, font=font)
    for row, (caption, rollouts, values) in enumerate(rows):
        top = TOP + row * (TOP + PIXELS + GAP)
        draw.text((GAP, top + 2), caption, fill=INK, font=font)
        for column, (rollout, value) in enumerate(zip(rollouts, values, strict=True)):
            left = GAP + column * (PIXELS + GAP)
            picture = Image.fromarray(np.asarray(rollout.frames_TVHWC[step, 0]))
            canvas.paste(picture.resize((PIXELS, PIXELS), Image.Resampling.NEAREST), (left, top + TOP))
            if step == HORIZON:
                colour = GOOD if value == 1 else BAD
                box = (left, top + TOP, left + PIXELS - 1, top + TOP + PIXELS - 1)
                draw.rectangle(box, outline=colour, width=4)
    return canvas


if __name__ == "__main__":
    main()
