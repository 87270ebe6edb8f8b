"""`gymnast fit`: supervised training of world models, policies and reward models."""
