"""What is believed: the priors, the distribution of a row, and the NumPyro model."""
