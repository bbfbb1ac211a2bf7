"""What runs are worth: probes on frozen features, and tables of results."""

from selfie_lite.evaluation.probes import effective_rank, embed, evaluate_features, knn_accuracy, linear_probe
from selfie_lite.evaluation.puzzle import puzzle_accuracy
from selfie_lite.evaluation.results import compare_runs, fraction_table, read_results

__all__ = [
    "compare_runs",
    "effective_rank",
    "embed",
    "evaluate_features",
    "fraction_table",
    "knn_accuracy",
    "linear_probe",
    "puzzle_accuracy",
    "read_results",
]
