"""One request and its response: bodies, tries, time, copies."""
