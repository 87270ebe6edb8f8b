"""Gates: what reinforcement learning in imagination rests on, measured before it (`gymnast gate`) and during it."""
