"""Exports and import bundles of EcoTaxa as TFDS data sets."""
