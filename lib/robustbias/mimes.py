"""Kinds of output that a notebook carries for programs, beside what a reader sees."""

CLAIMS = "application/vnd.robustbias.claims+json"
PROVENANCE = "application/vnd.robustbias.provenance+json"
