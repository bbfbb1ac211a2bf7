"""Every picture of the workbook: plain functions that take tensors and return a matplotlib Figure."""

# ruff: noqa: F401

from selfie_lite.workbook.figures.answers import draw_guess, draw_logits, draw_puzzle, draw_puzzles
from selfie_lite.workbook.figures.attention import draw_attention, draw_similarities
from selfie_lite.workbook.figures.canvas import to_png
from selfie_lite.workbook.figures.curves import draw_curves, draw_fractions, draw_training
from selfie_lite.workbook.figures.images import draw_encoder_decoder, draw_feature_maps, draw_grid, draw_images
from selfie_lite.workbook.figures.ladder import draw_differences, draw_points
from selfie_lite.workbook.figures.matrices import draw_matrices
from selfie_lite.workbook.figures.networks import draw_analogy, draw_origins, draw_selfie, draw_stages
