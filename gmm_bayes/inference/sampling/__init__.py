"""One posterior, drawn: samplers, and what they are given and return."""
