"""Reinforcement-learning algorithms: GRPO and its kin, PPO, REINFORCE++, RLOO and iterated filtered imitation."""
