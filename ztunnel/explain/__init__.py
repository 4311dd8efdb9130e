"""What the mesh makes of a call, and why: the decisions of both ends, asked without a connection."""
