"""worldgym"""
