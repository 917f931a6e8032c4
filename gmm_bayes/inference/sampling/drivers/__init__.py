"""Compiled programs that advance chains, and what is done between their calls."""
