"""Fashion-MNIST with a tree of three levels, as a TFDS data set."""
