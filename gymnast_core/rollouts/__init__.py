"""Episodes of a policy in a world: imagined, batched, dealt to processes."""
