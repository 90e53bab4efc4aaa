"""A plankton data set that is drawn instead of downloaded."""
