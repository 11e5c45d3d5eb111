"""This package is about a real Kubernetes control plane on this machine, for tests and demos.

`python -m epidote_operator.testing up` starts etcd, an API server, controllers, a scheduler and
a node that runs pods as local processes. It never touches a cluster that it did not start.
"""
