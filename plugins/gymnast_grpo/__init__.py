"""Reinforcement-learning algorithms: GRPO and iterated filtered imitation."""
