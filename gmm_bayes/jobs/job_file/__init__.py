"""The job file: its sections and keys, read, checked and written back."""
