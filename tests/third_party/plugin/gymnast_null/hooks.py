"""Registers the world under a second name."""


def gymnast_register(event):
    from gymnast_null.world import NullWorld

    event.registries.world_models.register("null-again", NullWorld)
