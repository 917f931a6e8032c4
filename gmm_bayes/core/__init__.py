"""Formulas: pure functions of arrays, free of NumPyro."""
