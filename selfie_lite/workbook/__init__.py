"""What the notebooks are made and run with: figures, exercises, parameters, notebook, walkthrough and sweep."""
