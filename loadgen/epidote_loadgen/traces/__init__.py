"""This package is about recorded traffic: reading public and own traces, and replaying them."""
