"""What is written back to objects of a cluster."""
