"""Tasks, folds, learners and cross-validation."""
