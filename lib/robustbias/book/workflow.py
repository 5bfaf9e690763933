"""The Snakefile run on this machine: one build at a time, silent unless something fails."""

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from snakemake.api import SnakemakeApi
from snakemake.exceptions import RuleException, WorkflowError
from snakemake.settings.enums import Quietness
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    ExecutionSettings,
    OutputSettings,
    ResourceSettings,
)

from robustbias import manifest
from robustbias.book import edition
from robustbias.utils import UserError


def build(rule: str, study: str = "", cores: int = 1) -> None:
    """Make what a rule of the Snakefile asks for, as far as it is missing or out of date.

    A job prints one line, and its log when it fails; Snakemake itself prints nothing.

    Args:
        study: Executed in addition to the edition's studies; several are separated by commas.

    Raises:
        UserError: An unknown study, another build that is still running, a job that failed, or
            anything else that stops Snakemake.
    """
    edition.contents(edition.studies(study))  # the Snakefile reads it too, but reports it badly
    programs = Path(sys.executable).parent  # jobs call `robustbias`
    os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    try:
        with _lock(edition.BUILD / "build.lock"), SnakemakeApi(_SILENT) as snakemake:
            workflow = snakemake.workflow(
                ResourceSettings(cores=cores),
                ConfigSettings(config={"study": study}),
                snakefile=manifest.ROOT / "Snakefile",
                workdir=manifest.ROOT,
            )
            graph = workflow.dag(DAGSettings(targets=[rule], force_incomplete=True))
            # Snakemake's own lock is a file that outlives a killed process.
            graph.execute_workflow(execution_settings=ExecutionSettings(lock=False))
    except (RuleException, WorkflowError) as error:
        raise UserError(f"the build stopped: {' '.join(str(error).split())}") from error


_SILENT = OutputSettings(quiet={Quietness.ALL})


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds the file's lock, which the operating system releases however this process ends.

    Raises:
        UserError: Another process holds it; the message has its number.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"another build is running here (process {file.read() or 'just started'}); "
                "wait until it has finished, or stop it."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
