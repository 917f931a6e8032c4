"""Rows in, blocks in standard units out."""
