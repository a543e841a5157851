"""The files of a run: folder, checkpoints, metrics, report, model card, final weights."""
