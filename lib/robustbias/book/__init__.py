"""The book: chapters executed once per study, staged together, rendered as one set of pages.

edition.py (what is executed) -> execution.py (strict papermill) -> staging.py (one source folder;
labels.py, pages.py) -> rendering.py (Jupyter Book; vendor.py).
"""
