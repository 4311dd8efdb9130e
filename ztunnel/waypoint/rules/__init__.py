"""What is asked of a request before it goes on: routes, tokens, policies, authorizers, rate limits."""
