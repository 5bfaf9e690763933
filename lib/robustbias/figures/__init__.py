"""Figures: functions from tables to one Figure each; nothing is measured here.

A figure is one function in a module of this folder, listed below.
"""

from robustbias.figures.adversarial import (
    accuracy_curve,
    adversarial_examples,
    training_records,
)
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

__all__ = [
    "accuracy_by_distortion",
    "accuracy_curve",
    "adversarial_examples",
    "corruption_heat",
    "distortion_examples",
    "distortion_readings",
    "dose_response",
    "first_filters",
    "noise_gain",
    "responses",
    "shape_bias_by_category",
    "shape_bias_summary",
    "smoothness_by_layer",
    "stimuli_with_decisions",
    "training_records",
    "verdict_matrix",
]
