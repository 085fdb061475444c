"""The Kubernetes cluster: Jobs through an API server, watched by one stream for all of them."""
