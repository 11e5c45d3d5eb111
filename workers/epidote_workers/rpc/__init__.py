"""This package is about calls between processes: many streams on one socket, typed by msgspec."""
