"""What follows from the draws: GMMFit in, labelled arrays out, draws streamed."""
