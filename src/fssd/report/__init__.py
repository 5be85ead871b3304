"""HTML pages about an evaluation, two compared models, and a data set."""
