"""Which component of one draw is which of another."""
