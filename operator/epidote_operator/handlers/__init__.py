"""This package is about what Kubernetes calls: kopf handlers that move data and decide nothing."""
