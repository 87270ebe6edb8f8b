"""Action-conditioned Wan as a world model: `world_model: {name: wan}`."""
