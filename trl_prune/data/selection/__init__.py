"""Choose the rows that repair what pruning broke: PASER (2502.12594) and the baselines to compare it with."""
