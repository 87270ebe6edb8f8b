"""Rollouts on a Ray cluster: the engine "ray" of `gymnast train`."""
