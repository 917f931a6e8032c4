"""A package, so that this conftest is not taken for the one above, which others import from."""
