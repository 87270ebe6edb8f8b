"""How strangers are found, loaded and told what happens."""
