"""`gymnast adapt`: test-time training of a policy for the scene that is in front of the robot (arXiv 2602.02454)."""
