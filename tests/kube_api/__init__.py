"""A Kubernetes API server of this machine: real HTTP, the Job controller's rules, real processes.

It stands apart from the tests so that all of them see one server: `FakeKube` is its front.
"""

from kube_api.cluster import FakeKube

__all__ = ["FakeKube"]
