"""The fold: one event after the other over the state of a partition."""
