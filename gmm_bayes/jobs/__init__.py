"""A fit as a job: its file, its data, what it writes and what it says."""
