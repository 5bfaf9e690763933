"""The front page: what the book found, in three sentences and one figure."""
