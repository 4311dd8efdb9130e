"""The mesh put into a cluster, brought to another version and taken out again, by Helm."""
