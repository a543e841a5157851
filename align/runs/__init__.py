"""Everything that a run leaves on disk: folder, checkpoints, metrics, report, model card, final weights."""
