"""Looking at data and choosing from it before training: checks, tables, mixtures, selections."""
