"""Scores, intervals by picture and paired tests, on arrays and confusion matrices."""
