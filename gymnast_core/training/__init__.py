"""The loop: imagine, judge, update."""
