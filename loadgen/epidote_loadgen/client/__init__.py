"""This package is about speaking HTTP and server-sent events to many streams at little cost."""
