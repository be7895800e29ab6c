"""Example bots, runnable from the top of the repository."""
