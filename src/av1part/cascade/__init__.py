"""The cascade: choices fitted on val, routing of nodes through the stages, and their analysis."""
