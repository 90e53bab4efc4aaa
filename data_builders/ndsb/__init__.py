"""The National Data Science Bowl of 2015 as a TFDS data set."""
