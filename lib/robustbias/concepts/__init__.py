"""Chapter 05: which concepts units detect."""
