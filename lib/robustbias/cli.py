"""robustbias on the command line. Errors a user can act on are one line, without a traceback."""

import inspect
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from robustbias import manifest
from robustbias.images import doctor as images_doctor
from robustbias.utils import MissingData, UserError

app = typer.Typer(
    help="Shape and simplicity biases of adversarially trained networks, measured on any study.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


Study = Annotated[str, typer.Option(help="An entry of data_manifest/studies.")]


Seed = Annotated[
    int, typer.Option(min=0, max=2**63 - 1, help="Sampling and random starts.", show_default="0")
]


Device = Annotated[str, typer.Option(help="cpu, cuda or auto.")]


Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A parameter; may be given several times."),
]


@app.command()
def fetch(
    names: Annotated[
        list[str], typer.Argument(help="Studies, data sets or networks of data_manifest/.")
    ],
):
    """Download data sets and weights, verify them and unpack them into the data directory.

    For a study: its images, stimuli and networks; what must be had by hand is listed.
    """
    from robustbias.images import download

    for name in names:
        if name in manifest.studies():
            print(*download.fetch_study(name), sep="\n")
        else:
            print(f"{name}: {download.fetch(name)}")


@app.command()
def doctor():
    """Say what is here and what is missing: data sets, weights, studies, device, versions."""

    for title, table in images_doctor.doctor().items():
        print(f"{title}\n{table.to_string(index=False)}\n")


Network = Annotated[str, typer.Argument(help="An entry of data_manifest/networks.")]


@app.command()
def check(
    network: Network,
    images: Annotated[int, typer.Option(min=1, help="Photographs of ImageNet to classify.")] = 2000,
    device: Device = "auto",
):
    """Load a network, look at its probed layers, and compare its accuracy with the published one.

    The accuracy is that on ImageNet's validation split, if it is here. Status 1 if one differs.
    """
    from robustbias import studies

    chosen = studies.chosen_device(device)
    table = images_doctor.checked(manifest.network(network), images, chosen)
    print(table.to_string(index=False))
    raise typer.Exit(int(not table["ok"].all()))


@app.command()
def convert(network: Network):
    """Write a network's foreign weights as safetensors, which are read from then on."""
    from robustbias.networks import zoo

    print(zoo.convert(manifest.network(network)))


@app.command()
def train(
    study: Annotated[str, typer.Argument(help="An entry of data_manifest/studies.")],
    network: Annotated[
        list[str] | None, typer.Option(help="Only this network; may be given several times.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="A table of the study's training parameters, instead of its own.")
    ] = "",
    settings: Settings = None,
    device: Device = "auto",
):
    """Train a study's networks; an interrupted run goes on where it stopped.

    With several GPUs: torchrun --standalone --nproc-per-node=8 --no-python robustbias train STUDY
    """
    from robustbias import training

    given = manifest.settings(settings)
    training.train_study(study, networks=network, device=device, variant=recipe, **given)


@app.command()
def measure(
    name: Annotated[str, typer.Argument(metavar="MEASURE", help="For instance shape_bias.")],
    study: Study = "iconworld",
    settings: Settings = None,
    seed: Seed = 0,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Write the table here, as CSV.")] = None,
):
    """Measure a study's networks and print the table; it is kept, and a second time is read."""
    from robustbias import manifest
    from robustbias import studies as studies_module
    from robustbias import tables as tables_module
    from robustbias.utils import atomic

    if out is not None:
        manifest.check_output(out)
    function = tables_module.measure_named(name)
    known = inspect.unwrap(function).__kwdefaults__ or {}
    optional = _optional(inspect.unwrap(function))
    given = manifest.checked(name, known, manifest.settings(settings), optional)
    loaded = studies_module.load(study, seed=seed, device=device)
    if not loaded.entries:
        raise MissingData(
            f"study {study} has no network whose weights are on this machine; run `robustbias "
            f"train {study}`, or `robustbias doctor` to see how to get them."
        )
    table = function(loaded, **given)
    if out is None:
        print(table.to_string(index=False, float_format="{:.4f}".format))
        return
    with atomic(out) as partial:
        table.to_csv(partial, index=False)
    print(out)


def _optional(function: Callable) -> dict[str, Any]:
    """A value of the annotated type for each parameter; of a union, of the last but None."""
    values = {}
    for name, annotation in typing.get_type_hints(function).items():
        kinds = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else ()
        for kind in kinds:
            if typing.get_origin(kind) in (list, tuple):
                values[name] = [typing.get_args(kind)[0]()]
            elif kind in (int, float, str):
                values[name] = kind()
    return values


@app.command()
def run(
    chapter: Annotated[str, typer.Argument(help="For instance 02_shape_bias, or a notebook.")],
    study: Study = "iconworld",
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option(help="The executed notebook.", show_default="in _build/runs")
    ] = None,
):
    """Execute one chapter on one study, with parameters of your own."""
    from robustbias.book import edition, execute

    source = edition.chapter(chapter)
    given = manifest.settings(settings)
    if given.get("study", study) != study:
        raise UserError(
            f"--set study={given['study']} contradicts --study {study}; choose the study by "
            "--study alone."
        )
    out = out or edition.BUILD / "runs" / study / source.name
    print(execute.execute(source, study, given, out))


@app.command()
def book(
    studies: Annotated[
        list[str] | None, typer.Argument(help="Studies executed in this build.")
    ] = None,
):
    """Render the book from chapters executed before (`build` executes and renders)."""
    from robustbias.book import edition, render

    contents = edition.contents(edition.studies(",".join(studies or [])))
    print(render.render(contents, edition.conclusions()))


@app.command()
def pdf():
    """Print the rendered book as one PDF (`make pdf`)."""
    from robustbias.book import render

    print(render.pdf())


@app.command()
def build(
    rule: Annotated[str, typer.Argument(help="A rule of the Snakefile.")] = "book",
    study: Annotated[str, typer.Option(help="Execute this study too.")] = "",
    cores: Annotated[int, typer.Option(min=1, help="Chapters executed at a time.")] = 1,
):
    """Execute what changed and render the book (`make book`); one build at a time."""
    from robustbias.book import edition

    edition.build(rule, study, cores)


@app.command()
def publish(
    study: Annotated[str, typer.Argument(help="A study whose chapters were executed.")],
):
    """Put a study's executed chapters into book/STUDY and the findings into README.md."""
    from robustbias.book import pages

    for path in pages.publish(study):
        print(path)


@app.command()
def verify(
    study: Annotated[
        str | None, typer.Argument(help="A published study.", show_default="all of them")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Executed notebooks to compare with, in place of book/STUDY")
    ] = None,
    tables: Annotated[
        Path | None, typer.Option(help="Another table store; every table of STUDY is compared too.")
    ] = None,
    renamed: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="A name in that store that has changed since."),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Largest relative deviation.")] = 1e-6,
    jobs: Annotated[int, typer.Option(min=1, help="Chapters executed at a time.")] = 1,
    stored: Annotated[
        bool, typer.Option("--stored", help="Take tables from the table store; measure none again.")
    ] = False,
):
    """Execute a published study again and compare every number; status 1 if one differs.

    The chapters are executed into _build/verify from the weights, with all tables measured again;
    the outcome is kept in book/STUDY/verified.json, for the page on provenance. With --against or
    --stored, which do not verify the published edition from the weights, nothing is kept.
    """
    from robustbias import tables as tables_module
    from robustbias.book import edition
    from robustbias.book import verify as book_verify

    if not 0 <= tolerance < 1:  # NaN, which nothing exceeds, neither
        raise UserError(f"--tolerance {tolerance}: expected a share, at least 0 and below 1.")
    if against and not study:
        raise UserError(
            "--against has the notebooks of one study: name it, verify STUDY --against."
        )
    names = [name for name in manifest.studies() if edition.notebooks(name, executed=False)]
    names = [manifest.study(study).name] if study else names
    if not names:
        raise UserError("no study is published here; run `make publish STUDY=name` first.")
    differing = 0
    with edition.alone(book_verify.FOLDER.with_suffix(".lock"), "verification"):
        for name in names:
            old = against or edition.PUBLISHED / name
            here = tables_module.folder() if stored else book_verify.FOLDER / "tables"
            if tables and (tables.resolve() == here.resolve() or not (tables / name).is_dir()):
                raise UserError(
                    f"--tables {tables}: expected another table store, with a folder {name}."
                )
            new = book_verify.recomputed(name, old, jobs=jobs, stored=stored)
            rows = book_verify.compared(old, new, tolerance)
            print(f"{name}, compared with {old}:", *book_verify.report(rows), sep="\n  ")
            differing += rows["differing"].sum()
            if not against and not stored:
                print(f"  kept in {book_verify.record(name, rows, new, tolerance)}")
            if tables:
                changes = manifest.settings(renamed)
                rows = book_verify.compared_tables(tables / name, here / name, tolerance, changes)
                print(
                    f"{name}, compared with {tables / name}:", *book_verify.report(rows), sep="\n  "
                )
                differing += rows["differing"].sum()
    raise typer.Exit(int(differing > 0))


@app.command()
def explorer(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="The next free one is used if it is taken.")
    ] = 8866,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
):
    """Serve the unit explorer, live, on this machine."""
    from robustbias.unit_explorer import server

    server.serve(port=port, browser=browser)


@app.command()
def visualise(
    study: Annotated[str, typer.Argument(help="An entry of data_manifest/studies.")],
    device: Device = "auto",
):
    """Draw what each unit of a study's S and R responds to most, where the weights are new."""
    from robustbias import studies as studies_module
    from robustbias.unit_explorer import sprites

    for path in sprites.drawn(studies_module.load(study, device=device)):
        print(path)


@app.command()
def decisions(
    study: Annotated[str, typer.Argument(help="An entry of data_manifest/studies.")],
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("_build/decisions"),
    device: Device = "auto",
):
    """Write a study's answers to its cue conflicts as per-trial CSVs, model-vs-human's format."""
    from robustbias import manifest
    from robustbias import studies as studies_module
    from robustbias.shape_bias import decisions as shape_bias_decisions

    manifest.check_output(out)
    for path in shape_bias_decisions.written(studies_module.load(study, device=device), out):
        print(path)


@app.command("shape-bias")
def shape_bias(
    files: Annotated[list[Path], typer.Argument(help="Per-trial decisions, model-vs-human's CSV.")],
    seed: Seed = 0,
):
    """Shape bias of each observer in decision files, with coverage and a 95 % interval.

    People (subject-01, subject-02, ...) are also pooled. Stimuli whose two cues agree are left
    out; no answer counts as neither.
    """
    from robustbias.shape_bias import decisions as shape_bias_decisions

    table = shape_bias_decisions.summary(files, seed=seed)
    print(table.to_string(index=False, float_format="{:.4f}".format))


def main() -> None:
    """The command line; exit status 2 for a user's error, 130 for Ctrl-C."""
    try:
        app()
    except UserError as error:
        _stop(str(error), 2)
    except MemoryError:
        _stop("the memory of this machine is not enough; ask for fewer images.", 2)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _stop(f"{place}{error.strerror or error}.", 2)
    except (KeyboardInterrupt, SystemExit) as stop:  # typer makes the first the second, silently
        if getattr(stop, "code", 130) != 130:
            raise
        _stop("interrupted.", 130)


def _stop(message: str, status: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(status) from None
