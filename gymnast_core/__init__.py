"""Gymnast: train vision-language-action policies by reinforcement learning inside learned world models."""

__version__ = "0.2.0"
