"""python -m gmm_bayes."""

from gmm_bayes.cli import main

if __name__ == "__main__":
    main()
