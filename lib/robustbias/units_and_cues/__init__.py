"""Chapter 07: which units serve which cue."""
