"""What runs inside the pod: fetch, then the stager beside the tool.

Starts in a blink: the standard library and obstore only.
"""
