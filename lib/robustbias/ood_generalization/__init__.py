"""Chapter 03: accuracy on distorted images."""
