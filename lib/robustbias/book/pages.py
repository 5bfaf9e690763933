"""Pages that the build writes: findings, one page per study, provenance. All are markdown."""

from pathlib import Path
from typing import Any

from robustbias import manifest
from robustbias.book.records import records
from robustbias.manifest import NetworkEntry, StudyEntry
from robustbias.mimes import CLAIMS, PROVENANCE
from robustbias.names import architecture

Contents = dict[str, list[Path]]


def table(header: list[str], rows: list[list[Any]]) -> str:
    """A markdown table; a bar inside a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def findings(contents: Contents) -> str:
    """Every claim tested, part by part: measured value and verdict by study and architecture."""
    claims = [
        claim
        for notebooks in contents.values()
        for path in notebooks
        for claim in records(path, CLAIMS)
    ]
    if not claims:
        return "*No claim has been tested yet.*"
    architectures = sorted({claim["architecture"] for claim in claims})
    rows: dict[tuple, dict[str, str]] = {}
    for claim in claims:
        title = manifest.study(claim["study"]).title
        where = ", ".join(filter(None, [title, claim["condition"]]))
        measured = "{measured} **{verdict}**".format(**claim)
        row = rows.setdefault((claim["id"], claim["statement"], where), {})
        row[claim["architecture"]] = measured
    lines, last = [], ""
    for (_, statement, where), row in sorted(rows.items(), key=lambda item: item[0][0]):
        cells = [row.get(name, "–") for name in architectures]
        lines.append(["" if statement == last else statement, where, *cells])
        last = statement
    return table(["claim", "study", *map(architecture, architectures)], lines)


def study_page(entry: StudyEntry) -> str:
    """A study's own page: what it looks at, with which networks, under which attack."""
    threat = entry.threat
    norm = {"l2": "L2", "linf": "L∞"}[threat.norm]
    networks = [manifest.network(name) for name in manifest.networks(entry.name)]
    sources = [manifest.dataset(name) for name in dict.fromkeys([entry.dataset, entry.stimuli])]
    return "\n\n".join(
        [
            f"# {entry.title}",
            entry.summary.strip(),
            "## Images",
            "\n".join(_source(source) for source in sources),
            f"Entry-level categories in play: {', '.join(entry.categories)}.",
            "## Threat model",
            f"Robust networks are trained against {norm} perturbations of at most {threat.eps:g}, "
            f"found in {threat.steps} steps of projected gradient descent, and tested with "
            f"{threat.test_steps}. The series over other radii uses "
            f"{architecture(entry.dose_architecture)}.",
            "## Networks",
            table(
                ["network", "architecture", "trained on", "width", "weights"],
                [_network(network) for network in networks],
            ),
        ]
    )


def provenance(contents: Contents) -> str:
    """What made the chapters of each study: what they share, then what each has of its own."""
    sections = []
    for study, notebooks in contents.items():
        facts = {
            path.stem: {k: v for record in records(path, PROVENANCE) for k, v in record.items()}
            for path in notebooks
        }
        names = list(dict.fromkeys(name for own in facts.values() for name in own))
        values = {name: [own.get(name, "–") for own in facts.values()] for name in names}
        shared = [[name, each[0]] for name, each in values.items() if len(set(each)) == 1]
        own = [name for name, each in values.items() if len(set(each)) > 1]
        sections += [
            f"## {manifest.study(study).title}",
            table(["all chapters", ""], shared),
            table(
                ["chapter", *own],
                [[chapter, *(facts[chapter].get(name, "–") for name in own)] for chapter in facts],
            ),
        ]
    return "\n\n".join(sections)


def _source(entry: manifest.DatasetEntry) -> str:
    counts = ", ".join(f"{number:,} {split}" for split, number in entry.images.items())
    where = f"Source: {entry.source}; {entry.citation}."
    return (
        f"- **{entry.title}** ({counts or 'drawn when needed'}). {where} Licence: {entry.licence}."
    )


def _network(entry: NetworkEntry) -> list[str]:
    norm = {"l2": "L2", "linf": "L∞"}.get(entry.norm, "")
    trained = f"{norm} eps {entry.eps:g}" if entry.eps else "clean images"
    trained += "" if entry.cue == "both" else f", {entry.cue} alone"
    return [
        entry.name,
        architecture(entry.architecture),
        trained,
        f"{entry.width:g}",
        entry.sha256[:12] or "–",
    ]
