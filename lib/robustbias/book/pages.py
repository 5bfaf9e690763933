"""Pages that the build writes: findings, one page per study, provenance. All are markdown."""

import contextlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import yaml
from nbformat.v4 import new_code_cell

from robustbias import manifest, training
from robustbias.book import edition
from robustbias.book.edition import Contents
from robustbias.claims import TITLES, UNTESTABLE, VERDICTS, matching
from robustbias.findings.measure import primary, read, records
from robustbias.findings.report import summary
from robustbias.front_page.report import answer
from robustbias.manifest import NetworkEntry, StudyEntry
from robustbias.utils import PROVENANCE, REGIMES, UserError, architecture, atomic, locked


def table(header: list[str], rows: list[list[Any]]) -> str:
    """A markdown table; a bar inside a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def verdicts_page(contents: Contents) -> str:
    """How many verdicts there are and how many the correction changes; each claim's; every one."""
    claims = read(contents)
    if claims.empty:
        return "*No claim has been tested yet.*"
    counted = summary(claims)
    claims = primary(claims)
    titles = list(dict.fromkeys(claims["title"]))
    counts, lines = [], []
    for (number, claim), rows in claims.groupby([_chapter(claims), "claim"], sort=False):
        judged = [matching(rows, title=title)["verdict"].value_counts() for title in titles]
        words = [
            ", ".join(f"{n[v]} {v}" for v in (*VERDICTS, UNTESTABLE) if v in n) for n in judged
        ]
        counts.append([number, TITLES.get(claim, claim), *(word or "–" for word in words)])
    for (number, statement), rows in claims.groupby([_chapter(claims), "statement"], sort=False):
        cells = {
            row.title: f"{'' if row.untestable else row.measured} **{row.verdict}**".strip()
            for row in rows.itertuples()
        }
        lines.append([number, statement, *(cells.get(title, "–") for title in titles)])
    return "\n\n".join(
        [
            counted,
            table(["chapter", "claim", *titles], counts),
            "## Statement by statement",
            _with_intervals(table(["chapter", "statement", *titles], lines)),
        ]
    )


def _chapter(claims: pd.DataFrame) -> pd.Series:
    """The number of the chapter that tests each claim; a reader knows it by no other id."""
    return claims["notebook"].str.extract(r"(\d+)_[^/]*$")[0].astype(int).rename("number")


def _with_intervals(text: str) -> str:
    """The table with each interval on a line of its own."""
    return re.sub(r"(\[-?[\d.,]+, -?[\d.,]+\])", r'<span class="interval">\1</span>', text)


def study_page(entry: StudyEntry) -> str:
    """The page of a study: its images, its networks and its threat model."""
    threat = entry.threat
    norm = {"l2": "L2", "linf": "L∞"}[threat.norm]
    networks = [manifest.network(name) for name in manifest.networks(entry.name)]
    names = dict.fromkeys([*(entry.preferred or [entry.dataset]), entry.stimuli, *entry.data])
    sources = [manifest.dataset(name) for name in names]
    return "\n\n".join(
        [
            f"# {entry.title}",
            entry.summary.strip(),
            "## Images",
            "\n".join(_source(source) for source in sources),
            f"Entry-level categories in play: {', '.join(entry.categories)}.{_decides(entry)}",
            "## Threat model",
            f"Robust networks are trained against {norm} perturbations of at most {threat.eps:g}, "
            f"found in {threat.steps} steps of projected gradient descent, and tested with "
            f"{threat.test_steps}. The series over other radii uses "
            f"{architecture(entry.dose_architecture)}.",
            "## Networks",
            _networks(entry),
            ":::{dropdown} Names, weights and training of each network",
            table(
                ["network", "architecture", "trained on", "width", "weights"],
                [_network(network) for network in networks],
            ),
            *_trainings(entry),
            ":::",
        ]
    )


def _networks(entry: StudyEntry) -> str:
    """The pairs of S and R in words, with the length of their training and their accuracy."""
    ledger = training.ledger(manifest.networks(entry.name))
    trained = {} if ledger.empty else {row.network: row for row in ledger.itertuples()}
    lines = []
    for name in manifest.networks(entry.name):
        network = manifest.network(name)
        if network.pair and network.replicate in entry.replicates:
            row = trained.get(name)
            facts = ["–"] * 3
            if row is not None:
                facts = [row.epochs, f"{row.clean:.2f}", f"{row.adversarial:.2f}"]
            letter = REGIMES[network.regime][0]
            lines.append([architecture(network.architecture), letter, *facts])
    return table(["network", "", "epochs", "clean accuracy", "under attack"], lines)


def _decides(entry: StudyEntry) -> str:
    if not entry.decides:
        return ""
    return (
        f" Claims about shape bias rest on the stimuli displayed as *{entry.decides}*; other "
        "displays are secondary."
    )


def _trainings(entry: StudyEntry) -> list[str]:
    """What each training took, and the command that repeats it; nothing without any record."""
    ledger = training.ledger(manifest.networks(entry.name))
    if ledger.empty:
        return []
    lines = [
        [row.network, row.epochs, f"{row.minutes:.0f}", f"{row.images_per_second:,.0f}",
         f"{row.clean:.2f}", f"{row.adversarial:.2f}", f"`{row.commit}`"]
        for row in ledger.itertuples()
    ]  # fmt: skip
    header = ["network", "epochs", "minutes", "images/s", "clean", "adversarial", "commit"]
    used = zip(ledger["device"], ledger["threads"], strict=True)
    devices = " and ".join(dict.fromkeys(f"{name}, threads used: {n}" for name, n in used))
    return [
        f"`robustbias train {entry.name} --network NAME` repeats one of them, `make train "
        f"STUDY={entry.name}` all. Accuracies are of validation images after the last epoch, under "
        f"{training.TEST_STEPS} steps at eps {entry.threat.eps:g}; times include them, on machines "
        f"that did other work as well: {devices}. Records of every epoch are with the weights.",
        table(header, lines),
    ]


def provenance(contents: Contents) -> str:
    """What produced the chapters of each study: facts they share, then facts that differ."""
    sections = []
    for study, notebooks in contents.items():
        facts = {
            path.stem: {k: v for record in records(path, PROVENANCE) for k, v in record.items()}
            for path in notebooks
        }
        names = list(dict.fromkeys(name for record in facts.values() for name in record))
        values = {name: [record.get(name, "–") for record in facts.values()] for name in names}
        shared = [[name, each[0]] for name, each in values.items() if len(set(each)) == 1]
        differing = [name for name, each in values.items() if len(set(each)) > 1]
        sections += [
            f"## {manifest.study(study).title}",
            _verified(study),
            table(["all chapters", ""], shared),
            table(
                ["chapter", *differing],
                [
                    [name, *(record.get(fact, "–") for fact in differing)]
                    for name, record in facts.items()
                ],
            ),
        ]
    return "\n\n".join(sections)


def _verified(study: str) -> str:
    """What the last re-computation of a study's published chapters found."""
    path = edition.verified(study)
    if not path.is_file():
        return f"The published numbers were not computed again yet (`make verify STUDY={study}`)."
    facts = json.loads(path.read_text(encoding="utf-8"))
    return (
        f"{facts['agree']:,} of {facts['numbers']:,} published numbers and verdicts were computed "
        f"again and agree (tolerance {facts['tolerance']:g}, largest relative deviation "
        f"{facts['largest_relative']:.2g}): {facts['device']}, threads: {facts['threads']}, "
        f"{facts['date']}, commit `{facts['commit']}`."
    )


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
    weights = entry.sha256[:12] or "–"
    return [entry.name, architecture(entry.architecture), trained, f"{entry.width:g}", weights]


# The published edition: executed chapters kept in the repository, and the findings in README.

_BLOCK = re.compile(r"(<!-- findings -->\n).*?(<!-- end of findings -->)", re.S)


def publish(study: str) -> list[Path]:
    """Copy a study's executed chapters to `book/STUDY/`; renew the answer and figure of README.md.

    Raises:
        UserError: The study is unknown, a chapter was not executed on it, or it was by a library
            that differs from its commit.
    """
    manifest.study(study)
    folder, readme = edition.PUBLISHED / study, manifest.ROOT / "README.md"
    with locked(manifest.ROOT / "_build" / "locks" / "publication.lock"):
        _recover(folder)
        executed = edition.notebooks(study, executed=True)
        if missing := [path.stem for path in executed if not path.exists()]:
            raise UserError(
                f"not executed on {study}: {', '.join(missing)}; run `make publish STUDY={study}`."
            )
        if loose := [path.stem for path in executed if not _committed(path)]:
            raise UserError(
                f"executed with changes in lib/ that are not committed: {', '.join(loose)}; commit "
                f"them, remove {executed[0].parent} and run `make publish STUDY={study}` again."
            )
        text = readme.read_text(encoding="utf-8")
        renewed(text, "")  # raises without its marks, before anything is written
        published = _replaced(folder, executed)
        claims = read(edition.contents([]))
        sentence = "" if claims.empty else f"{answer(claims)}\n"
        with atomic(readme) as partial:
            partial.write_text(renewed(text, sentence), encoding="utf-8")
        if (key := _key_figure()) is not None:
            with atomic(edition.PUBLISHED / "static" / "key_figure.svg") as partial:
                partial.write_text(key, encoding="utf-8")
    return [*published, readme]


def _key_figure() -> str | None:
    """The figure of the executed front page, as SVG; None if it was not executed."""
    page = edition.front_page()
    figures = records(page, "image/svg+xml") if page.exists() else []
    return figures[0] if figures else None


def _committed(notebook: Path) -> bool:
    """Whether the commit in a notebook's footer names all code it was executed with."""
    made = records(notebook, PROVENANCE)
    return not any(str(facts.get("commit", "")).endswith("+") for facts in made)


def _replaced(folder: Path, sources: list[Path]) -> list[Path]:
    """The files, copied in place of all that is in the folder: old ones or new ones, never a mix.

    They are copied to a hidden folder next to it, then the two folders change places. If that
    stops between its two renames, the next call puts the old folder back first.

    Raises:
        UserError: The disk refused the write; the folder is as it was.
    """
    new, old = _new(folder), _old(folder)
    try:
        new.mkdir(parents=True)
        for source in sources:
            shutil.copy(source, new / source.name)
            _installing(new / source.name)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except OSError as error:
        raise UserError(
            f"could not publish to {folder}: {error.strerror or error}. What was published "
            "before is unchanged; free some space or make the folder writable, and try again."
        ) from error
    finally:
        _recover(folder)
    return [folder / source.name for source in sources]


_INSTALL = """\
# Installs the package where it is missing, for instance on Colab; elsewhere it does nothing.
import importlib.util
import sys

if importlib.util.find_spec("robustbias") is None:
    !git clone --quiet --depth 1 --branch {branch} {url} robustbias-book
    %cd robustbias-book
    %pip install --quiet --requirement requirements.txt
    sys.path.insert(0, "lib")"""


def _installing(notebook: Path) -> None:
    """Gives a notebook a first cell that installs the package, if the repository has an address."""
    config = yaml.safe_load((manifest.ROOT / "_config.yml").read_text(encoding="utf-8"))
    repository = config.get("repository", {})
    if not repository.get("url"):
        return
    chapter = nbformat.read(notebook, as_version=4)
    chapter.cells.insert(0, new_code_cell(_INSTALL.format(**repository), id="install"))
    chapter.cells[0].metadata["tags"] = ["install"]
    nbformat.write(chapter, notebook)


def _new(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.new")


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _recover(folder: Path) -> None:
    """Ends a replacement that was stopped: puts the old folder back where there is none.

    What cannot be removed stays for the next call.
    """
    new, old = _new(folder), _old(folder)
    with contextlib.suppress(OSError):
        if old.exists() and not folder.exists():
            old.rename(folder)
    if folder.exists():  # else the old folder is all there is
        shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(new, ignore_errors=True)


def renewed(text: str, findings: str) -> str:
    """The text with everything between its two findings marks replaced.

    Raises:
        UserError: The text does not hold the two marks, once.
    """
    text, count = _BLOCK.subn(lambda marks: f"{marks[1]}{findings}\n{marks[2]}", text)
    if count != 1:
        raise UserError(
            "README.md should hold one <!-- findings --> and one <!-- end of findings -->; "
            f"found {count} such pairs. Put them back around the table of findings."
        )
    return text
