# train -> measure -> execute -> render: each step runs again just when what it reads has changed.
# Measuring is part of executing: a chapter takes its tables from the table store and measures what
# is not there, so that new prose or a new figure measures nothing again.
#
# `make book` asks for the page. On a cluster the same file runs through Snakemake's executors:
#     snakemake trained --config study=imagenet --executor slurm --jobs 20
#     snakemake book --config study=imagenet --executor slurm --jobs 20
import shlex

from robustbias import manifest
from robustbias.book import edition
from robustbias.networks import zoo

ADDED = config.get("study", "")
EXECUTED = edition.studies(ADDED)
CONCLUSIONS = [path.relative_to(manifest.ROOT) for path in edition.conclusions()]
CONTENTS = {
    study: [path.relative_to(manifest.ROOT) for path in paths]
    for study, paths in edition.contents(EXECUTED).items()
}

# What a chapter's outputs depend on: the library without its shell (commands, downloads, book).
SHELL = {"cli", "doctor", "download", "server"}
CORE = [
    path
    for path in sorted(Path("lib/robustbias").rglob("*.py"))
    if path.stem not in SHELL and path.parent.name != "book"
]
FACTS = sorted(path for path in Path("data_manifest").glob("[!.]*") if path.is_file())
FACTS += sorted(path for path in Path("data_manifest").glob("[!.]*/[!.]*") if path.is_file())


def facts(wildcards):
    """The manifest without the entries of other studies."""
    others = set(manifest.studies()) - {wildcards.study}
    return [path for path in FACTS if path.stem not in others or path.parent.name == "datasets"]


def weights(wildcards):
    """Weights and training records that are here; a missing one is no reason to train."""
    entries = [manifest.network(name) for name in manifest.networks(wildcards.study)]
    suffixes = (".safetensors", ".json")
    ours = [manifest.ROOT / entry.weights for entry in entries if entry.trained_here]
    paths = {path.with_suffix(suffix).relative_to(manifest.ROOT) for path in ours for suffix in suffixes}
    paths |= {zoo.weights_path(entry) for entry in entries if not entry.trained_here}
    return sorted(path for path in paths if path.is_file())


def given(wildcards):
    """The edition's parameters of a chapter, as options of `robustbias run`."""
    chosen = edition.parameters(wildcards.study, wildcards.chapter)
    return " ".join(shlex.quote(f"--set={name}={value!r}") for name, value in chosen.items())


wildcard_constraints:
    study="[^/]+",
    chapter="[^/]+",


rule book:
    default_target: True
    input:
        "_build/html/index.html",


rule executed:
    input:
        [path for study in (ADDED.split(",") if ADDED else EXECUTED) for path in CONTENTS[study]],


TRAINED = [name for name in manifest.networks(ADDED) if manifest.network(name).trained_here] if ADDED else []


# Training runs on demand only: nothing in `book` asks for what this rule makes.
rule trained:
    input:
        expand("_build/trained/{network}", network=TRAINED),


rule train:
    output:
        touch("_build/trained/{network}"),
    shell:
        "robustbias train {ADDED} --network {wildcards.network}"


rule execute:
    input:
        chapter="chapters/{chapter}.ipynb",
        core=CORE,
        facts=facts,
        weights=weights,
    output:
        "_build/notebooks/{study}/{chapter}.ipynb",
    params:
        given=given,
    log:
        "_build/logs/{study}/{chapter}.log",
    threads: 1
    shell:
        "echo executing {wildcards.chapter} on {wildcards.study};"
        " OMP_NUM_THREADS={threads} robustbias run {wildcards.chapter} --study {wildcards.study}"
        " --out {output} {params.given} > {log} 2>&1 || (cat {log} >&2; exit 1)"


# A closing chapter reads what the others found, so it comes after all of them.
rule conclude:
    input:
        chapter="chapters/{chapter}.ipynb",
        notebooks=[path for paths in CONTENTS.values() for path in paths],
        core=CORE,
        facts=FACTS,
    output:
        "_build/notebooks/{chapter}.ipynb",
    params:
        executed=EXECUTED,
    log:
        "_build/logs/{chapter}.log",
    shell:
        "echo executing {wildcards.chapter};"
        " robustbias run {wildcards.chapter} --out {output} --set \"executed={params.executed!r}\""
        " > {log} 2>&1 || (cat {log} >&2; exit 1)"


rule render:
    input:
        conclusions=CONCLUSIONS,
        notebooks=[path for paths in CONTENTS.values() for path in paths],
        pages=[path for path in sorted(Path("book").rglob("*")) if path.is_file()],
        renderer=sorted(Path("lib/robustbias/book").glob("*.py")),
        facts=FACTS,
        config="_config.yml",
    output:
        "_build/html/index.html",
    params:
        studies=" ".join(EXECUTED),
    shell:
        "echo rendering; robustbias book {params.studies} > /dev/null"
