"""Tables, plots and pages, from run folders alone."""
