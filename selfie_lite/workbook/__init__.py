"""What the notebooks are made and run with: figures, exercises, parameters, walkthrough and sweep."""
