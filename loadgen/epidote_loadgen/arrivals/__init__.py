"""This package is about when requests are sent: rates over time, spacings, closed loops."""
