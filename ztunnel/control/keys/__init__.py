"""The keys of issuers, fetched within bounds."""
