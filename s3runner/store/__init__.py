"""The object store: one small protocol, and what implements it."""
