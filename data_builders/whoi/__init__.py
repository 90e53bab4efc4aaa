"""WHOI-Plankton as a TFDS data set."""
