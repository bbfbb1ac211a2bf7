"""One notebook, run in a kernel of its own."""

from tiny import write_notebook

from selfie_lite.workbook.notebook import run_notebook


def test_a_kernel_that_dies_is_a_failure(tmp_path):
    write_notebook(tmp_path / "01_a.ipynb", "import os; os._exit(9)")
    outcome = run_notebook(tmp_path / "01_a.ipynb", tmp_path / "out/01_a.ipynb", {}, show_progress=False)
    assert not outcome.ok and "died" in outcome.error.lower()
