"""Chapter 09: all verdicts and numbers side by side."""
