"""Servers that are asked: their addresses, checked, and keys, which reach nobody else and no text."""
