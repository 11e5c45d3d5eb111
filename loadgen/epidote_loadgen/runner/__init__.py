"""This package is about carrying a plan out: on time, in several processes, watching itself."""
