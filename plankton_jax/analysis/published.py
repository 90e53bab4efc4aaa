"""The report's own numbers, in per cent, for the tables that show ours beside them. Data alone.

Read off the report's tables 4 to 7. Of its averages: accuracy, precision and recall are macro and
F1 weighted, but the accuracies of B-CNN, HB-CNN and BA-CNN in table 4, and those of table 5, which
are not its recalls, are micro, and the F1 of table 5 is macro.
"""

SIDES = ("relevant", "irrelevant")
NUM_LEAVES = 93

# Accuracy, F1, precision, recall of each level; None where the report has none.
TABLE_4 = {
    "Flat baseline": (None, None, (88.5, 89.6, 91.2, 88.5)),
    "B-CNN": ((97.1, 97.1, 97.1, 97.1), (95.8, 95.8, 95.1, 94.7), (92.3, 92.3, 92.6, 90.6)),
    "HB-CNN": ((97.2, 97.2, 97.2, 97.2), (95.6, 95.5, 94.8, 94.0), (92.0, 91.9, 91.8, 89.0)),
    "BA-CNN": ((98.7, 98.7, 98.7, 98.7), (95.9, 95.8, 95.5, 94.9), (92.2, 92.1, 92.3, 89.5)),
    "SBA-CNN": ((97.2, 97.2, 97.2, 97.2), (90.2, 90.8, 89.1, 90.2), (83.7, 88.4, 89.7, 83.7)),
}

# SBA-CNN's five heads: the gate, then level 2 and 3 of a side; branch 1 is the irrelevant side.
TABLE_5 = {
    "binary head": (97.2, 97.2, 97.2, 97.2),
    "irrelevant, level 2": (93.9, 91.2, 92.4, 90.0),
    "irrelevant, level 3": (89.5, 82.8, 85.8, 80.6),
    "relevant, level 2": (99.5, 98.5, 98.5, 98.4),
    "relevant, level 3": (95.8, 90.6, 90.4, 91.0),
}

# Of the images whose true side is the given one: levels 2 and 3.
TABLE_6 = {
    ("B-CNN", "relevant"): ((98.9, 99.6, 94.3, 98.9), (94.5, 96.5, 95.3, 94.5)),
    ("HB-CNN", "relevant"): ((98.9, 99.5, 94.0, 98.9), (93.2, 96.4, 95.0, 93.1)),
    ("BA-CNN", "relevant"): ((99.2, 99.7, 96.8, 99.2), (93.1, 96.5, 95.3, 93.1)),
    ("SBA-CNN", "relevant"): ((99.2, 99.7, 99.2, 99.2), (93.1, 96.2, 91.4, 93.1)),
    ("B-CNN", "irrelevant"): ((91.9, 94.2, 87.7, 91.9), (83.8, 90.1, 87.0, 83.1)),
    ("HB-CNN", "irrelevant"): ((91.1, 94.1, 87.8, 91.1), (80.7, 89.8, 87.1, 80.7)),
    ("BA-CNN", "irrelevant"): ((92.0, 94.4, 91.7, 92.0), (83.1, 90.1, 88.0, 83.1)),
    ("SBA-CNN", "irrelevant"): ((89.8, 93.9, 92.6, 89.8), (80.0, 89.5, 85.3, 80.0)),
}

# Coherence accuracy: relevant, irrelevant, all.
TABLE_7 = {
    "B-CNN": (93.4, 87.0, 90.1),
    "HB-CNN": (93.4, 87.2, 90.2),
    "BA-CNN": (95.2, 88.5, 91.8),
    "SBA-CNN": (93.7, 87.7, 90.1),
}
