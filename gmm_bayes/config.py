"""The job file: strict, typed, clear errors."""
