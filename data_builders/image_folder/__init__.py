"""A folder of images, one folder a class, as a TFDS data set."""
