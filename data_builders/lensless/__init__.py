"""Plankton under a lensless microscope as a TFDS data set."""
