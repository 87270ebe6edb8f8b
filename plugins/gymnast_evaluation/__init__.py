"""`gymnast evaluate`: the value of policies in worlds, compared on the same tasks."""
