"""What the node knows of the mesh: an immutable world, how it changes, and who may see it."""
