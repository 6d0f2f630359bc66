"""Self-data distillation's data step: rewriting requests, answer types, acceptance of the rewritten answers."""
