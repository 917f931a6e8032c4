"""Which rows belong together, whatever the numbers of the components."""
