"""A small model's decode step as machine code, compiled on the machine that runs it."""
