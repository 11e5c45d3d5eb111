"""This package is about what a fleet is made of in Kubernetes: manifests, from values alone.

Pure: the same service gives the same manifests, in the form that server-side apply takes.
"""
