"""A node proxy of ours in a large world: what that costs, and how it takes changes."""
