"""Who may call whom: rules, verdicts, their explanation, and their enforcement on live connections."""
