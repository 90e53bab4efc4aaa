"""ZooScan images, in both releases, as TFDS data sets."""
