"""Pages one can look at: an evaluation, two models compared, a data set, a training run."""
