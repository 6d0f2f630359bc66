"""A smaller model as the draft of speculative decoding (2211.17192): what is accepted, and how much faster it is."""
