"""A world in which nothing moves."""
