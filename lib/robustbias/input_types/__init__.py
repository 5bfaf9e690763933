"""Chapter 06: to how many types of inputs units respond."""
