"""Learning from pairs without a reference model: SimPO, ORPO, CPO, and what they share."""
