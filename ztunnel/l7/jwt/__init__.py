"""JSON Web Tokens: read, proved once, and what RequestAuthentications make of them."""
