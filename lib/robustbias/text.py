"""Text that a notebook shows as prose."""


class Prose(str):
    """A string in markdown; a notebook renders it."""

    def _repr_markdown_(self) -> str:
        return str(self)
