"""What the objects of a mesh and its node proxies say to an operator: what is wrong, doubtful, known."""
