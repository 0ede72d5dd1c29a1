"""Inspection: what a run or a score file says of single samples, and which look mislabelled."""
