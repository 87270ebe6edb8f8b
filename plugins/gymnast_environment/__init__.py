"""The Gymnasium environment behind a task: as a world to act in, and as the judge of what was imagined."""
