"""ZooLake as a TFDS data set."""
