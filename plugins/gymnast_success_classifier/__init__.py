"""A small classifier that says, from first and last frame, whether an instruction was fulfilled."""
