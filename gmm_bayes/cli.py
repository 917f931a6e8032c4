"""The command line: gmm-bayes run | check | show."""
