"""The claims of the demonstration: what a mesh promises, each measured on a laboratory."""
