"""Registers the world under a second name."""


def gymnast_register(registries):
    from gymnast_null.world import NullWorld

    registries.world_models.register("null-again", NullWorld)
