"""Pictures of mixtures; everything generic is left to ArviZ."""
