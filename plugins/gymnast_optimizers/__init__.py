"""Reinforcement-learning algorithms: GRPO, RLOO and iterated filtered imitation."""
