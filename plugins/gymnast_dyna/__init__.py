"""`gymnast dyna`: rounds of recording, refitting the world model and the judge, and practising in them."""
