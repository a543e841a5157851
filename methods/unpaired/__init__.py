"""Learning from single answers known to be good or bad: KTO, BCO, and what they share."""
