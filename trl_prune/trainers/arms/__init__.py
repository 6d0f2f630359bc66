"""Training of one recovery arm: settings, argument checks, training in one or several processes, saving."""
