"""Chapter 01: what adversarial training costs and what it buys."""
