"""Maximum likelihood, and where everything begins."""
