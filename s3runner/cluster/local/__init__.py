"""The local cluster: the very same Job object, run as processes of this machine."""
