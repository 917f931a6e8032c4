"""What a job writes of its fit, and what a finished job says of new rows."""
