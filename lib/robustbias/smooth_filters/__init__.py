"""Chapter 04: smoothness of filters and activations."""
