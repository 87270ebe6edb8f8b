"""How long something will take, before it runs: counted work over what a machine does in a second."""
