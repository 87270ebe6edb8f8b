"""Checks of the contracts in `gymnast_core.interfaces`; public as `gymnast_core.testing`."""
