"""Which label a classifier decodes, and how many classes it has."""

from rtdecode_models.data.shape import Shape


def classes_of(shape: Shape, label: str) -> int:
    """How many classes a label has.

    Raises
    ------
    ValueError
        The data have no such label, or it has fewer than two classes.
    """
    if label not in shape.classes:
        there = ", ".join(sorted(shape.classes)) or "none"
        raise ValueError(f"label is {label!r}, which the data do not have; they have {there}")
    if shape.classes[label] < 2:
        raise ValueError(f"label {label!r} has {shape.classes[label]} classes; expected two or more")
    return shape.classes[label]
