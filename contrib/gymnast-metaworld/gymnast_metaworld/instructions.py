"""What the robot is told in each of Meta-World's 50 tasks, in plain words. Meta-World itself has names only.

The first wording of a task is its standard one, and no two tasks share it. The others mean the same.
"""

from __future__ import annotations

INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "assembly": ("put the ring on the peg", "pick up the ring and place it over the peg"),
    "basketball": ("put the ball in the basket", "drop the basketball through the hoop"),
    "bin-picking": ("move the cube to the other bin", "pick the cube and place it in the other bin"),
    "box-close": ("put the lid on the box", "close the box with its lid"),
    "button-press": ("push the button in", "press the button on the front of the box"),
    "button-press-topdown": ("press the button", "press the button down from above"),
    "button-press-topdown-wall": ("press the button behind the wall", "reach over the wall and press the button down"),
    "button-press-wall": ("push the button in behind the wall", "reach around the wall and push the button in"),
    "coffee-button": ("press the button of the coffee machine", "start the coffee machine"),
    "coffee-pull": ("pull the mug away from the coffee machine", "take the mug out from under the coffee machine"),
    "coffee-push": ("push the mug under the coffee machine", "slide the mug to the coffee machine"),
    "dial-turn": ("turn the dial", "rotate the dial half a turn"),
    "disassemble": ("take the ring off the peg", "lift the ring off the peg"),
    "door-close": ("close the door", "push the door shut"),
    "door-lock": ("lock the door", "turn the lock of the door to lock it"),
    "door-open": ("open the door", "pull the door open by its handle"),
    "door-unlock": ("unlock the door", "turn the lock of the door to unlock it"),
    "drawer-close": ("close the drawer", "push the drawer shut"),
    "drawer-open": ("open the drawer", "pull the drawer open by its handle"),
    "faucet-close": ("close the faucet", "turn the faucet off"),
    "faucet-open": ("open the faucet", "turn the faucet on"),
    "hammer": ("hammer the nail into the wall", "take the hammer and drive the nail in"),
    "hand-insert": ("put the gripper into the hole", "reach into the hole in the table"),
    "handle-press": ("press the handle down", "push down the handle"),
    "handle-press-side": ("press the handle at the side down", "push down the handle that points to the side"),
    "handle-pull": ("pull the handle up", "lift the handle"),
    "handle-pull-side": ("pull the handle at the side up", "lift the handle that points to the side"),
    "lever-pull": ("pull the lever up", "raise the lever"),
    "peg-insert-side": ("insert the peg into the hole", "pick up the peg and push it into the hole at the side"),
    "peg-unplug-side": ("pull the peg out of the hole", "unplug the peg"),
    "pick-out-of-hole": ("take the puck out of the hole", "lift the puck out of the hole and bring it to the goal"),
    "pick-place": ("lift the puck to the goal", "pick up the puck and hold it at the goal"),
    "pick-place-wall": ("lift the puck over the wall to the goal", "carry the puck over the wall to the goal"),
    "plate-slide": ("slide the plate into the cabinet", "push the plate forward into the cabinet"),
    "plate-slide-back": ("slide the plate out of the cabinet", "pull the plate back out of the cabinet"),
    "plate-slide-back-side": ("slide the plate sideways out of the cabinet", "move the plate out of the cabinet"),
    "plate-slide-side": ("slide the plate sideways into the cabinet", "push the plate into the cabinet at the side"),
    "push": ("push the puck to the goal", "move the puck over the table to the goal"),
    "push-back": ("pull the cube back to the goal", "move the cube towards the robot to the goal"),
    "push-wall": ("push the puck around the wall to the goal", "move the puck past the wall to the goal"),
    "reach": ("reach the goal", "move the gripper to the goal"),
    "reach-wall": ("reach the goal behind the wall", "move the gripper past the wall to the goal"),
    "shelf-place": ("put the cube on the shelf", "pick up the cube and place it on the shelf"),
    "soccer": ("push the ball into the soccer goal", "score a goal with the ball"),
    "stick-pull": ("pull the thermos with the stick", "take the stick and pull the thermos to the goal"),
    "stick-push": ("push the thermos with the stick", "take the stick and push the thermos to the goal"),
    "sweep": ("sweep the cube off the table", "push the cube over the edge of the table"),
    "sweep-into": ("sweep the cube into the hole", "push the cube into the hole in the table"),
    "window-close": ("close the window", "slide the window shut"),
    "window-open": ("open the window", "slide the window open"),
}

TASKS = tuple(INSTRUCTIONS)
"""The names of the 50 tasks, Meta-World's own without the version's suffix, in alphabetical order."""


def suggest(task: str) -> str:
    """The error text for a task that does not exist: the nearest names, and where all of them are."""
    from difflib import get_close_matches

    near = get_close_matches(task, TASKS, n=3) or list(TASKS[:3])
    return f"Meta-World has no task {task!r}. Nearest: {', '.join(near)}. All 50: gymnast_metaworld.instructions.TASKS."
