"""Bins of an Imaging FlowCytobot as a TFDS data set."""
