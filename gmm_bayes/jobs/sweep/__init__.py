"""Many jobs from one file."""
