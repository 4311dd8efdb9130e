"""What the Telemetry API asks for: conditions on requests, tags, and whose word counts."""
