"""Losses of the literature on facial expressions, each a task of ``training.tasks``."""
