"""The way into a pod: tunnels and plaintext, judged, then handed to the application."""
