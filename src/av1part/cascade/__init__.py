"""The cascade: nodes routed through the stages, what each stage costs, and its predictor."""
