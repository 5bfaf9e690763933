"""Chapter 02: which of two conflicting cues, shape or texture, networks follow."""
