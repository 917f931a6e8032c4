"""Data in, GMMFit out."""
