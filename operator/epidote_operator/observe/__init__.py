"""This package is about seeing: gateways' metrics and fleets, pods; and making a snapshot of it."""
