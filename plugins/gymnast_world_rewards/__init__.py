"""Rewards that ask the world model: does a success come back, how near is the expert's rollout, how sure is it."""
