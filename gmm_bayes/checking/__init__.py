"""Is it the right model, and is the machine right?"""
