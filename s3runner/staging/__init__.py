"""Staging: what a tree is, what of it must move, and moving it. Knows nothing of clusters."""
