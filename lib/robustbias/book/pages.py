"""Pages that the build writes: findings, one page per study, provenance. All are markdown."""

import contextlib
import itertools
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import yaml
from nbformat.v4 import new_code_cell

from robustbias import manifest, plotting, studies, training
from robustbias.book import edition
from robustbias.book.edition import Contents
from robustbias.claims import FIELDS, TITLES, UNTESTABLE, VERDICTS, headline_means, matching
from robustbias.findings.measure import primary, read, records
from robustbias.findings.report import summary
from robustbias.front_page.report import answer
from robustbias.manifest import NetworkEntry, StudyEntry
from robustbias.plotting import interval_text
from robustbias.utils import HEADLINES, PROVENANCE, UserError, architecture, atomic, locked, reading


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


def study_page(entry: StudyEntry, notebooks: Sequence[Path] = ()) -> str:
    """The page of a study: its images, its threat model, its networks with what they reach.

    Args:
        notebooks: Its executed or published chapters, whose numbers the page repeats.
    """
    threat = entry.threat
    norm = {"l2": "L2", "linf": "L∞"}[threat.norm]
    networks = [manifest.network(name) for name in manifest.networks(entry.name)]
    sources = [manifest.dataset(name) for name in entry.sets]
    numbers = [row for path in notebooks for row in records(path, HEADLINES)]
    numbers = pd.DataFrame(numbers, columns=FIELDS)
    trained = training.ledger(network.name for network in networks)
    others = {
        n.architecture for n in networks if n.series == "radius" and n.eps not in (0, threat.eps)
    }
    series = "".join(f" The series over other radii uses {architecture(a)}." for a in others)
    return "\n\n".join(
        [
            f"# {entry.title}",
            entry.summary.strip(),
            "## Images",
            "\n".join(_source(source) for source in sources),
            f"Entry-level categories in play: {', '.join(entry.categories)}.{_decides(entry)}",
            *_PICTURE * bool(entry.world),
            "## Threat model",
            f"Robust networks are trained against {norm} perturbations of at most {threat.eps:g}, "
            f"found in {threat.steps} steps of projected gradient descent, and tested with "
            f"{threat.test_steps}.{series}",
            "## Networks",
            *pairs_section(numbers),
            *_ledger(entry, networks, numbers, trained),
            ":::{dropdown} Names, weights and commits",
            table(
                ["network", "architecture", "trained on", "width", "weights", "trained at commit"],
                [_network(network) for network in networks],
            ),
            *_repeat(entry, trained),
            ":::",
        ]
    )


_PICTURE = (
    "![One drawing of each category in its texture](categories.svg)",
    "One held-out drawing of each category, in the texture that the category has in training.",
)

# number of a chapter -> column of the table of pairs; the number under attack names its radius too
_PAIRS = {
    "top-1, clean": "clean",
    "top-1 under attack": "under attack",
    "by shape": "by shape",
    "by texture": "by texture",
    "shape bias": "shape bias",
    "coverage": "coverage",
}
_SIDES = {"standard": "S", "robust": "R", "robust - standard": "R minus S"}


def pairs_section(numbers: pd.DataFrame) -> list[str]:
    """S, R and R minus S of each architecture, with intervals, and what these cover.

    Args:
        numbers: Of the study's chapters, with the columns `claims.FIELDS`.
    """
    column = numbers["number"].str.replace(r", eps .*", "", regex=True).map(_PAIRS)
    rows = numbers.assign(column=column).dropna(subset=["column"])
    rows = rows[rows["regime"].isin(list(_SIDES))]
    if rows.empty:
        return []
    trainings = rows[rows["mean_over"].isna() & rows["replicate"].notna()]
    counts = trainings[trainings["regime"] == "robust"].groupby("architecture")["replicate"]
    most = counts.nunique().max() if len(trainings) else 1
    covers = "the choice of test images, not other trainings: there is one of each network"
    if most > 1:
        each = ", ".join(f"{architecture(name)} {n}" for name, n in counts.nunique().items())
        covers = f"the choice of test images and of trainings (trainings of S and of R: {each})"
    tested = int(rows.loc[rows["column"] == "under attack", "n"].max())
    means = headline_means(rows).set_index(["architecture", "regime", "column"])
    lines = []
    for name, side in itertools.product(sorted(rows["architecture"].unique()), _SIDES):
        cells = [
            interval_text(means.loc[key]) if (key := (name, side, word)) in means.index else "–"
            for word in _PAIRS.values()
        ]
        lines.append([architecture(name), _SIDES[side], *cells])
    return [
        f"Accuracies are of {tested:,} validation images, clean and under the attack of chapter 1 "
        "at the radius above; the other columns are decisions on cue conflicts (chapter 2), by "
        f"shape and by texture as shares of all. Intervals cover {covers}.",
        _with_intervals(table(["network", "", *_PAIRS.values()], lines)),
    ]


def _ledger(
    entry: StudyEntry, networks: list[NetworkEntry], numbers: pd.DataFrame, trained: pd.DataFrame
) -> Iterator[str]:
    """One row per network that was trained here: what its training took and what it reaches."""
    if trained.empty:
        return
    under_attack = numbers[numbers["number"].fillna("").str.startswith("top-1 under attack")]
    robust = under_attack[under_attack["mean_over"].isna()].set_index("network")
    attacked = _attacked()
    union = {row.network: row.union / row.images for row in attacked.itertuples()}
    lines = []
    by_name = {network.name: network for network in networks}
    places = {name: (n.architecture, n.regime, n.eps, n.cue) for name, n in by_name.items()}
    trained = trained.sort_values("network", key=lambda names: names.map(places), kind="stable")
    for row in trained.itertuples():
        network = by_name[row.network]
        cells = [
            re.sub(r", replicate \d+$", "", network.title), network.replicate, row.epochs,
            f"{row.minutes:.0f}", f"{row.device}, {row.threads}", "yes" if row.plateau else "no",
            f"{row.clean:.2f}", f"{row.adversarial:.2f}",
            f"{robust['value'][row.network]:.2f}" if row.network in robust.index else "–",
        ]  # fmt: skip
        if len(union):
            cells.append(f"{union[row.network]:.2f}" if row.network in union else "–")
        lines.append(cells)
    header = ["network", "replicate", "epochs", "minutes", "device, threads", "plateau"]
    header += ["clean", "short attack", "attack of chapter 1"]
    header += ["independent attacks"] * bool(len(union))
    images = f" ({int(robust['n'].max()):,} images)" if len(robust) else ""
    yield "## Trainings"
    yield (
        "Every network that was trained here. Plateau: whether the last tests of the training "
        "agree within a standard error ({ref}`sec-recipes`). Clean accuracy and accuracy under a "
        f"short attack of {training.TEST_STEPS} steps at eps {entry.threat.eps:g} are of "
        f"validation images after the last epoch. The attack of chapter 1{images} is the worst "
        "case over losses, schedules and targets, for the pairs that the chapters evaluate."
        + " ".join(["", *_robustness_words(entry, attacked)])
    )
    yield table(header, lines)


def _repeat(entry: StudyEntry, trained: pd.DataFrame) -> list[str]:
    """The commands that repeat trainings; nothing where no network is trained here."""
    if trained.empty:
        return []
    rate = f"{trained['images_per_second'].min():,.0f} to {trained['images_per_second'].max():,.0f}"
    return [
        f"`robustbias train {entry.name} --network NAME` repeats one training, `make train "
        f"STUDY={entry.name}` all. Times include the tests, on machines that did other work as "
        f"well ({rate} images per second); records of every epoch are with the weights."
    ]


# What programs in benchmarks/ measured and stored; a page says nothing of what is not there.


def _stored(name: str) -> pd.DataFrame:
    """The rows of benchmarks/NAME.csv, an empty table without the file."""
    path = manifest.ROOT / "benchmarks" / f"{name}.csv"
    if not path.is_file():
        return pd.DataFrame()
    with reading(path, "a CSV file", f"correct it, or run benchmarks/{name}.py --store"):
        return pd.read_csv(path)


def _attacked() -> pd.DataFrame:
    """The rows of benchmarks/robustness.csv that are of the weights in the manifest."""
    rows = _stored("robustness")
    if rows.empty:
        return rows
    known = {name: manifest.network(name) for name in manifest.networks()}
    current = [
        name in known and known[name].sha256.startswith(weights)
        for name, weights in zip(rows["network"], rows["weights"], strict=True)
    ]
    return rows[current]


def _robustness_words(entry: StudyEntry, rows: pd.DataFrame) -> list[str]:
    """How far the chapters' attack is from the union of independent attacks, in a sentence."""
    if rows.empty or (rows := rows[rows["network"].isin(manifest.networks(entry.name))]).empty:
        return []
    least = rows["images"].min()
    return [
        f"Independent attacks are the union of those of two other libraries, on the same images "
        f"(at least {least:,}): the chapters' attack leaves at most "
        f"{100 * rows['difference'].max():.1f} percentage points more correct, on "
        f"{len(rows)} networks. Images that only the attack without gradients fools: "
        f"{rows['square'].sum()}; images with a gradient of zero: {rows['zero_gradients'].sum()}."
    ]


def recipes() -> str:
    """The table of recipes for the page on methods; empty where none was stored."""
    rows = _stored("recipes")
    if rows.empty:
        return ""
    rows = rows.sort_values(["average", "warm"], kind="stable")  # each adds to the one before
    lines = [
        [row.recipe, row.epochs, f"{row.warm:g}, {row.ramp:g}", f"{row.average:g}",
         f"{row.seconds / 60:.0f}", f"{row.clean:.2f}", f"{row.robust:.2f}",
         "yes" if row.plateau else "no"]
        for row in rows.itertuples()
    ]  # fmt: skip
    network = manifest.network(rows["network"].iloc[0])
    how = rows.iloc[-1]
    return "\n\n".join(
        [
            f"Recipes compared on one network ({network.title}; one thread; accuracies of "
            f"{how['images']:,} validation images, under the attack of the chapters):",
            table(
                ["recipe", "epochs", "warm, ramp", "average", "minutes", "clean", "under attack",
                 "plateau"],
                lines,
            ),
            f"Each recipe adds to the one above it. `{how['command']}`, {how['device']}, threads: "
            f"{how['threads']}, commit `{how['commit']}`.",
        ]
    )  # fmt: skip


def _decides(entry: StudyEntry) -> str:
    if not entry.decides:
        return ""
    return (
        f" Claims about shape bias rest on the stimuli displayed as *{entry.decides}*; other "
        "displays are secondary."
    )


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


def drawn_categories(entry: StudyEntry) -> str:
    """One drawing of each category in the texture that it has in training, as SVG."""
    images = studies.load(entry.name, device="cpu").source.val(len(entry.categories))
    figure, axes = plotting.canvas(2, -(-len(images) // 2), panel=(0.85, 1.05))
    for ax, label, pixels in zip(
        axes.flat, images.labels, plotting.channels_last(images.pixels), strict=False
    ):
        plotting.picture(ax, pixels / 255, images.classes[label])
    return figure.svg()


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
    ledger = training.ledger([entry.name])
    commit = "–" if ledger.empty else f"`{ledger['commit'].iloc[0]}`"
    named = [entry.name, architecture(entry.architecture), trained]
    return [*named, f"{entry.width:g}", weights, commit]


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
