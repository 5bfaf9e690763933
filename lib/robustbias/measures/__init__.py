"""Measures: functions from a study to one tidy table, kept in the table store.

A measure is one `@measure` function in a module of this folder; its name is its id, and importing
it here is all it takes to be found by the command line and the tests.

Columns, where they apply: study, network, architecture, regime (standard | robust), eps (training
radius, pixel units), condition, metric, value, low, high, n. Anything else a measure varies is a
column of its own. Every combination of the other columns occurs once.
"""

from robustbias.measures.ablation import ablation
from robustbias.measures.accuracy import accuracy, accuracy_checks
from robustbias.measures.attribution import attribution, attribution_examples
from robustbias.measures.conflict import conflict_trials, displays
from robustbias.measures.cue_units import cue_units
from robustbias.measures.dissection import concept_set, dissection
from robustbias.measures.dissection import labels as unit_labels
from robustbias.measures.examples import adversarial_examples
from robustbias.measures.folder_sets import folder_accuracy
from robustbias.measures.input_types import input_types
from robustbias.measures.ood import ood
from robustbias.measures.parity import cue_parity
from robustbias.measures.records import training_records
from robustbias.measures.registry import REGISTRY, measure, tidy
from robustbias.measures.responses import first_filters, responses
from robustbias.measures.shape_bias import decided_bias, shape_bias
from robustbias.measures.smoothness import smoothness
from robustbias.measures.unit_examples import unit_examples

__all__ = [
    "REGISTRY",
    "ablation",
    "accuracy",
    "accuracy_checks",
    "adversarial_examples",
    "attribution",
    "attribution_examples",
    "concept_set",
    "conflict_trials",
    "cue_parity",
    "cue_units",
    "decided_bias",
    "displays",
    "dissection",
    "first_filters",
    "folder_accuracy",
    "input_types",
    "measure",
    "ood",
    "responses",
    "shape_bias",
    "smoothness",
    "tidy",
    "training_records",
    "unit_examples",
    "unit_labels",
]
