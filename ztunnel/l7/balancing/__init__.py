"""Which endpoint a request goes to, and how many may be under way."""
