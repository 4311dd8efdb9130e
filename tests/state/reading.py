"""Reads a spec as a manifest's, and says which fields have faults."""

from ztunnel.state.manifest import Notes, compose


def read(reader, text, place=None):
    """What `reader` makes of an object with that `spec:`, and the fields that have a fault; with `place`, of
    the text itself as the field of that name."""
    notes = Notes()
    if place is None:
        found = reader(compose(f"metadata: {{name: a, namespace: shop}}\nspec:\n{text}\n", notes))
    else:
        found = reader(compose(f"{place}:\n{text}\n", notes).sub(place))
    return found, [fault.field for fault in notes.faults]
