"""The record of a fit, and its file."""
