"""What runs beside an environment, in whatever interpreter that needs: Python 3.9 or later, NumPy and Gymnasium.

Nothing here imports the rest of the project. `__main__` is started by its path.
"""
