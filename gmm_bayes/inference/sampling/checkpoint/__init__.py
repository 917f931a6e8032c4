"""What is kept of a run while it goes on, in memory or on disk."""
