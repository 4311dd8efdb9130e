"""The way out of a pod: where a call goes, and how it gets there."""
