"""Is the machine right? Truths ranked among the draws of their posteriors."""
