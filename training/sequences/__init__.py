"""Expressions over time: what a sequence of faces shows, from what its frames show."""
