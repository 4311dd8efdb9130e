"""Routes, compiled: a request in, the rule that is for it and what becomes of the request out."""
