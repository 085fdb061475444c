"""Clusters: the Job object and its rules, and the adapters that run it."""
