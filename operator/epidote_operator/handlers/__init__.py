"""This package is about the operator as a process: kopf's indices, the ticker, leadership, HTTP."""
