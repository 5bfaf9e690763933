"""Figures: functions from tables to one Figure each; nothing is measured here.

A figure is one function in a module of this folder, listed below.
"""

from robustbias.figures.adversarial import (
    accuracy_curve,
    adversarial_examples,
    training_records,
)
from robustbias.figures.attribution import attribution_maps, attribution_regions
from robustbias.figures.concepts import (
    best_iou,
    detectors_by_layer,
    input_types_by_layer,
    input_types_by_unit,
    unit_examples,
)
from robustbias.figures.corruptions import corruption_sheet
from robustbias.figures.cues import (
    shape_bias_by_category,
    shape_bias_summary,
    stimuli_with_decisions,
)
from robustbias.figures.doses import dose_response
from robustbias.figures.findings import verdict_matrix
from robustbias.figures.ood import (
    accuracy_by_distortion,
    corruption_heat,
    distortion_examples,
    distortion_readings,
)
from robustbias.figures.smoothness import (
    first_filters,
    noise_gain,
    responses,
    smoothness_by_layer,
)
from robustbias.figures.units import scores_by_layer, serving_units, unit_scores

__all__ = [
    "accuracy_by_distortion",
    "accuracy_curve",
    "adversarial_examples",
    "attribution_maps",
    "attribution_regions",
    "best_iou",
    "corruption_heat",
    "corruption_sheet",
    "detectors_by_layer",
    "distortion_examples",
    "distortion_readings",
    "dose_response",
    "first_filters",
    "input_types_by_layer",
    "input_types_by_unit",
    "noise_gain",
    "responses",
    "scores_by_layer",
    "serving_units",
    "shape_bias_by_category",
    "shape_bias_summary",
    "smoothness_by_layer",
    "stimuli_with_decisions",
    "training_records",
    "unit_examples",
    "unit_scores",
    "verdict_matrix",
]
