"""This package is about what a person sees while a run goes on."""
