# train -> measure -> execute -> render: each step runs again just when what it reads has changed.
# Measuring is part of executing: a chapter takes its tables from the table store and measures what
# is not there, so that new prose or a new figure measures nothing again.
#
# `make book` asks for the page. On a cluster the same file runs with a profile, where each chapter
# is a job, or `workers` jobs that share the parts of its measures (see book/scale.md):
#     snakemake book --profile profiles/slurm --config study=imagenet workers=8
#     snakemake trained --profile profiles/slurm --config study=imagenet gpus=8
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


def data(wildcards):
    return edition.data_here(wildcards.study)


def given(wildcards):
    """The edition's parameters of a chapter, as options of `robustbias run`."""
    chosen = edition.parameters(wildcards.study, wildcards.chapter)
    return " ".join(shlex.quote(f"--set={name}={value!r}") for name, value in chosen.items())


WORKERS = int(config.get("workers", 1))
GPUS = int(config.get("gpus", 1))


def heavy(wildcards):
    """1 where images are large: such chapters run one at a time on a machine, on all its cores."""
    sizes = [manifest.network(name).size for name in manifest.networks(wildcards.study)]
    return int(max(sizes, default=0) > 128)


def threads(wildcards):
    return max(1, workflow.cores or 1) if heavy(wildcards) else 1


def memory(wildcards):
    return 12_000 if heavy(wildcards) else 3_000


def shares(wildcards):
    """Marks of the jobs that together measure what a chapter needs, when there are several."""
    names = [f"{i}of{WORKERS}" for i in range(1, WORKERS + 1)]
    place = f"_build/shares/{wildcards.study}/{wildcards.chapter}"
    return [f"{place}/{name}" for name in names] if WORKERS > 1 and heavy(wildcards) else []


wildcard_constraints:
    study="[^/]+",
    chapter="[^/]+",
    worker="[0-9]+",
    workers="[0-9]+",


localrules: book, executed, trained, render


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
    params:
        launch=f"torchrun --standalone --nproc-per-node={GPUS} --no-python " if GPUS > 1 else "",
    resources:
        heavy=1,
        gpu=GPUS,
    shell:
        "{params.launch}robustbias train {ADDED} --network {wildcards.network}"


rule share:
    input:
        chapter="chapters/{chapter}.ipynb",
        core=CORE,
        facts=facts,
        weights=weights,
    output:
        touch("_build/shares/{study}/{chapter}/{worker}of{workers}"),
    params:
        given=given,
        data=data,
    threads: threads
    resources:
        heavy=heavy,
        mem_mb=memory,
    shell:
        "ROBUSTBIAS_WORKER={wildcards.worker}/{wildcards.workers} OMP_NUM_THREADS={threads}"
        " robustbias run {wildcards.chapter} --study {wildcards.study}"
        " --out _build/runs/{wildcards.study}/{wildcards.worker}/{wildcards.chapter}.ipynb {params.given}"


rule execute:
    input:
        chapter="chapters/{chapter}.ipynb",
        core=CORE,
        facts=facts,
        weights=weights,
        shares=shares,
    output:
        "_build/notebooks/{study}/{chapter}.ipynb",
    params:
        given=given,
        data=data,
    log:
        "_build/logs/{study}/{chapter}.log",
    threads: threads
    resources:
        heavy=heavy,
        mem_mb=memory,
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
