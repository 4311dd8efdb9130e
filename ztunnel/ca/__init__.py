"""The authority of a mesh: who asks, what they may have, what signs, and where it is kept."""
