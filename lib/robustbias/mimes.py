"""What a notebook carries for programs, beside what a reader sees."""

import html
from typing import Any

CLAIMS = "application/vnd.robustbias.claims+json"
HEADLINES = "application/vnd.robustbias.headlines+json"
PROVENANCE = "application/vnd.robustbias.provenance+json"


class Footer(dict):
    """Facts by name: a notebook shows them as a table and keeps them as a provenance record."""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        rows = [(html.escape(str(name)), html.escape(str(value))) for name, value in self.items()]
        body = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)
        return {
            "text/plain": "\n".join(f"{name}: {value}" for name, value in self.items()),
            "text/html": f'<table class="dataframe"><tbody>{body}</tbody></table>',
            PROVENANCE: {name: str(value) for name, value in self.items()},
        }
